"""The ladder of missing data: each kind has a word of its own, because each asks for another act. Missing is never 0.

The words are those of the `reason` of an evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Effect = Literal["wait", "missing", "freeze"]
"""wait: nothing is said yet · missing: the alert becomes no_data, an open episode stays open · freeze: the slice is unknown,
its alert stays as it is."""


@dataclass(frozen=True)
class Rung:
    """One kind of missing."""

    effect: Effect
    zh: str
    en: str


LADDER: Final[Mapping[str, Rung]] = MappingProxyType(
    {
        "not_due": Rung("wait", "尚未到期", "not due yet"),
        "late": Rung("missing", "数据迟到", "late"),
        "empty": Rung("missing", "整表无数据", "empty"),
        "null_value": Rung("missing", "值为空", "null"),
        "missing_slice": Rung("missing", "切片缺失", "slice missing"),
        "upstream_failed": Rung("freeze", "上游失败", "upstream failed"),
        "absent": Rung("freeze", "来源没有此输入", "the source lacks the input"),
        "error": Rung("freeze", "评估出错", "evaluation error"),
    }
)
"""By the reason word of a verdict. The deadline of not_due and late is in the metric's time zone, and set by the rule."""


UNJUDGED_WORDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "min_sample": ("样本不足", "too few to judge"),
        "no_baseline": ("历史不足，无法比较", "not enough history to compare with"),
        "new_definition": (
            "口径已变更，新口径的历史尚不足",
            "the definition changed, not enough history under the new one",
        ),
        "muted": ("规则在此不判定", "the rule is mute here"),
    }
)
"""Reasons of a value that could not be judged, Chinese and English; they hold an alert as it is."""


def effect_of(reason: str) -> Effect | None:
    """What a reason word does to an alert; None when it is not on the ladder."""
    rung = LADDER.get(reason)
    return None if rung is None else rung.effect
