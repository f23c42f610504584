"""A published shop of eight weeks in which payments by one method in one region fail on the last day."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import pytest

from metrics_pipeline.diagnosis.diagnose import Context
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.warehouse.read import Published
from tests.rules.shop import Shop

FIRST = datetime(2025, 3, 3)
DAYS = 57
LAST = FIRST + timedelta(days=DAYS - 1)
REGIONS = {"华东": 0.5, "华北": 0.3, "华南": 0.2}
CHANNELS = {"app": 0.6, "web": 0.4}
WEEK = (0.9, 0.92, 0.95, 1.0, 1.05, 1.2, 1.1)


class World(NamedTuple):
    """What tests diagnose."""

    published: Published
    context: Context


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue.read(PROJECT_ROOT / "dbt_project")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, catalogue: Catalogue) -> World:
    """Visits by region and channel; of 5 % orders 90 % are paid, on the last day a third of it in 华东 by app."""
    rng = np.random.default_rng(3)
    series: dict[tuple[str, str, str], list] = {}

    def put(metric: str, dimension: str, member: str, value: object) -> None:
        series.setdefault((metric, dimension, member), []).append(value)

    for at in range(DAYS):
        cells = {}
        for region, share in REGIONS.items():
            for channel, part in CHANNELS.items():
                visits = float(rng.poisson(40_000 * WEEK[at % 7] * share * part))
                placed = float(rng.binomial(int(visits), 0.05))
                rate = 0.3 if at == DAYS - 1 and (region, channel) == ("华东", "app") else 0.9
                cells[region, channel] = np.array([visits, placed, rng.binomial(int(placed), rate)], dtype=float)
        for dimension, member, one in _cut(cells):
            visits, placed, paid = map(float, one)
            for metric, value in (("sessions", visits), ("orders_placed", placed), ("orders_paid", paid)):
                put(metric, dimension, member, value)
            put("order_conversion_rate", dimension, member, (placed, visits))
            put("payment_conversion_rate", dimension, member, (paid, placed))
    for value in np.random.default_rng(5).poisson(4_000, DAYS):
        put("shipments_due", "all", "all", float(value))
    shop = Shop()
    for (metric, dimension, member), values in series.items():
        shop.add(metric, values, dimension=dimension, member=member, first=FIRST.date())
    return World(shop.publish(tmp_path_factory.mktemp("diagnosis")), Context(catalogue, problems=()))


def _cut(cells):
    yield "all", "all", sum(cells.values())
    for region in REGIONS:
        yield "region", region, sum(one for (name, _), one in cells.items() if name == region)
    for channel in CHANNELS:
        yield "channel", channel, sum(one for (_, name), one in cells.items() if name == channel)
    for (region, channel), one in cells.items():
        yield "region|channel", f"{region}|{channel}", one
