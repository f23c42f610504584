"""The stretch of shop-local days that one run rebuilds: what dbt is given and what publishing may rewrite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta


@dataclass(frozen=True)
class Window:
    """Shop-local days [start, until). Raises `ValueError` when it is empty."""

    start: date
    until: date

    def __post_init__(self) -> None:
        for name in ("start", "until"):
            value = getattr(self, name)
            if isinstance(value, datetime):
                if value.time() != datetime.min.time():
                    raise ValueError(f"a window is made of whole shop-local days, got {name} {value}")
                object.__setattr__(self, name, value.date())
        if self.until <= self.start:
            raise ValueError(f"an empty window: start {self.start}, until {self.until} (until is exclusive)")

    @property
    def days(self) -> int:
        """Number of days."""
        return (self.until - self.start).days

    @property
    def first_month(self) -> date:
        """First day of the month of the first day."""
        return self.start.replace(day=1)

    @property
    def month_end(self) -> date:
        """First day after the month of the last day."""
        return next_month((self.until - timedelta(days=1)).replace(day=1))

    def months(self) -> Iterator[date]:
        """First days of the months the window meets, in order."""
        month = self.first_month
        while month < self.until:
            yield month
            month = next_month(month)


def next_month(month: date) -> date:
    """First day of the month after the one `month` lies in."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)
