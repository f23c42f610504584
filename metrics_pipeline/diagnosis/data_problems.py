"""Data that are not what they seem on the day of a change: evidence that the change is none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.diagnosis.model import Coinciding
from metrics_pipeline.rules.together import data_problems

if TYPE_CHECKING:
    from metrics_pipeline.warehouse.read import Published


def data_problems_on(published: Published, on: date, promotions: Sequence[PromotionDay]) -> list[Coinciding]:
    """Tracking loss, double tracking, duplicate and partial loads of the day: of the total, else of channels or regions."""
    return [
        Coinciding(
            "data_problem",
            f"{one.verdict}:{one.dimension}={one.member}",
            one.reason_zh,
            one.reason_en,
            on,
            on,
            {} if one.dimension == "all" else {one.dimension: one.member},
        )
        for one in data_problems(published, on, promotions)
    ]
