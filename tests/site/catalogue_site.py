"""The content of a site of the starter metrics and rules."""

from __future__ import annotations

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.seeds import read_seeds
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.site.content import Content, gather

SECRET = 98765.4321
"""Value of every confidential metric."""


def site_content(catalogue: Catalogue, published, **options) -> Content:
    seeds = read_seeds(PROJECT_ROOT / "dbt_project", "Asia/Shanghai")
    return gather(
        catalogue,
        published=published,
        rules=load_rules(PROJECT_ROOT / "alert_rules", catalogue, seeds).rules,
        promotions=seeds.promotions,
        currency="CNY",
        **{"withheld": {name for name, one in catalogue.metrics.items() if one.sensitivity == "confidential"}}
        | options,
    )
