"""How slices, periods and numbers are written for people, Chinese and English: in diagnoses, advice and messages alike."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

Locale = Literal["zh", "en"]

TOTAL: Final[dict[Locale, str]] = {"zh": "全部", "en": "total"}

DIMENSIONS: Final[dict[str, dict[Locale, str]]] = {
    "region": {"zh": "地区", "en": "region"},
    "channel": {"zh": "渠道", "en": "channel"},
    "segment": {"zh": "客群", "en": "segment"},
    "payment_method": {"zh": "支付方式", "en": "payment method"},
    "category": {"zh": "品类", "en": "category"},
    "sku": {"zh": "SKU", "en": "SKU"},
    "warehouse": {"zh": "仓库", "en": "warehouse"},
    "campaign": {"zh": "活动", "en": "campaign"},
    "ad_channel": {"zh": "广告渠道", "en": "ad channel"},
    "job": {"zh": "任务", "en": "job"},
    "part": {"zh": "部分", "en": "part"},
}


def slice_name(dimension: str, member: str, locale: Locale) -> str:
    """`地区=华北 · 渠道=app`, or the word for the total."""
    if dimension in ("all", ""):
        return TOTAL[locale]
    names = dimension.split("|")
    members = member.split("|") if len(names) > 1 else [member]
    if len(members) != len(names):
        return f"{dimension}={member}"
    labels = [DIMENSIONS[name][locale] if name in DIMENSIONS else name for name in names]
    return " · ".join(f"{label}={value}" for label, value in zip(labels, members, strict=True))


def period_name(period: datetime, grain: str) -> str:
    """`2025-11-11`, or `2025-11-11 14:00` for hours; shop-local."""
    return f"{period:%Y-%m-%d %H:%M}" if grain == "hour" else f"{period:%Y-%m-%d}"


def number(value: float | None, unit: str, *, currency: str = "", short: bool = False) -> str:
    """A number as people write it: ratios in percent, amounts and counts with thousands. `short`: for an axis."""
    if value is None:
        return "–"
    if unit == "ratio":
        percent = value * 100
        return f"{percent:.3g}%" if short or abs(percent) < 1 else f"{percent:,.1f}%"
    if short and abs(value) >= 10_000:
        for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.3g}{suffix}"
    if unit == "currency":
        amount = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.2f}"
        return f"{amount} {currency}".rstrip() if not short else amount
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:,.4g}" if abs(value) < 1 else f"{value:,.2f}"
