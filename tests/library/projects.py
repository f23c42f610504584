"""A small dbt project for tests that change definitions."""

from __future__ import annotations

import io
import shutil
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.definitions import SEMANTIC_FILE
from metrics_pipeline.settings import PROJECT_ROOT

DBT = PROJECT_ROOT / "dbt_project"
KEPT = {
    "refunded_orders", "refund_amount", "orders_placed", "orders_paid", "paid_amount", "units_sold", "units_sold_28d",
    "payment_conversion_rate", "refund_rate", "average_order_value", "order_health", "buyers",
}  # fmt: skip
PROCESSES = {"orders", "payments", "order_items", "refunds"}


def small_project(folder: Path) -> Path:
    """A copy of a few metrics, with facts and seeds, that a test may change: reading it takes a tenth of the whole."""
    for part in ("models/facts", "models/base", "models/operational", "seeds", "macros"):
        shutil.copytree(DBT / part, folder / "dbt" / part)
    for path in (folder / "dbt").glob("models/*/[!_]*.yml"):
        if path.stem not in KEPT:
            path.unlink()
    (folder / "dbt" / SEMANTIC_FILE).write_text(_few_processes(), "utf-8")
    return folder / "dbt"


@cache
def _few_processes() -> str:
    yaml = YAML()
    document = yaml.load((DBT / SEMANTIC_FILE).read_text("utf-8"))
    document["semantic_models"] = [one for one in document["semantic_models"] if one["name"] in PROCESSES]
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def metric_file(project: Path, metric: str) -> Path:
    (path,) = project.glob(f"models/*/{metric}.yml")
    return path


def edit(project: Path, metric: str, old: str, new: str) -> None:
    path = metric_file(project, metric)
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def add_former(project: Path, metric: str, text: str) -> Catalogue:
    path = metric_file(project, metric)
    path.write_text(path.read_text("utf-8").rstrip() + text, "utf-8")
    return Catalogue.read(project)
