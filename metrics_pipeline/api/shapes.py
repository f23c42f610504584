"""Parameters and answers, as the OpenAPI document tells them. Periods are shop-local, moments are UTC."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from metrics_pipeline.api.problems import BilingualError

DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
MOMENT: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?")
YEARS: Final = range(1970, 2200)


def _moment(text: str) -> str:
    try:
        if DAY.fullmatch(text) or MOMENT.fullmatch(text):
            found = datetime.fromisoformat(text)
            if found.year in YEARS:
                return text
    except ValueError:
        pass
    raise BilingualError(
        f"{text!r} is no day or time from 1970 to 2199; write 2026-11-11 or 2026-11-11T08:00",
        f"{text!r} 不是 1970 至 2199 年间的日期或时间;请写成 2026-11-11 或 2026-11-11T08:00",
    )


Moment = Annotated[str, AfterValidator(_moment)]
Cursor = Annotated[
    str | None, Field(max_length=2000, description="`next` of the page before; repeat its other parameters.")
]
_PLAIN = r"^[^\x00-\x1f\x7f]*$"


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MetricsQuery(_Query):
    """Which metrics."""

    layer: Literal["base", "operational", "strategic"] | None = Field(None, description="Only of this layer.")
    line: str | None = Field(
        None, max_length=100, pattern=_PLAIN, description="Only of this business line.", examples=["trade"]
    )
    q: str | None = Field(
        None,
        max_length=100,
        pattern=_PLAIN,
        description="Only those with this text in their id, names or definition.",
        examples=["退款"],
    )
    limit: int = Field(100, ge=1, le=1000, description="Metrics of a page.")
    cursor: Cursor = None


class ValuesQuery(_Query):
    """Which values of a metric."""

    dimension: str = Field(
        "all",
        max_length=100,
        pattern=_PLAIN,
        description="One of the metric's `slices`: `all` (the total), a dimension, or a pair such as `region|channel`.",
        examples=["region"],
    )
    member: str | None = Field(
        None,
        max_length=400,
        pattern=_PLAIN,
        description="One member of the dimension (of a pair: `华北|app`); default: all that you may see.",
        examples=["华北"],
    )
    grain: Literal["day", "hour"] = Field("day", description="Length of a period.")
    from_: Moment | None = Field(
        None,
        alias="from",
        description="First period, shop-local. Default: 90 days (7 for hours) before `until`.",
        examples=["2026-11-01"],
    )
    until: Moment | None = Field(
        None,
        description="End of the periods, exclusive, shop-local. Default: the newest complete one with a `from` of its own "
        "choice, else no end.",
        examples=["2026-11-12"],
    )
    as_of: Moment | None = Field(
        None,
        description="Values as they were known then, with the definition that made them: a time (shop-local unless it "
        "says its offset), or a day, which means its end.",
        examples=["2026-11-12T09:00"],
    )
    limit: int = Field(1000, ge=1, le=50_000, description="Rows of a page.")
    cursor: Cursor = None


def moment_of(text: str | None) -> datetime | None:
    """A validated parameter as a datetime; a day is its beginning."""
    return None if text is None else datetime.fromisoformat(text)


def as_of_moment(text: str) -> datetime:
    """A validated `as_of`: a day is known once it is over."""
    found = datetime.fromisoformat(text)
    return found + timedelta(days=1) if DAY.fullmatch(text) else found


# -- answers -------------------------------------------------------------------------------------------------------


class Words(BaseModel):
    """The same in both languages."""

    en: str
    zh: str


class MetricItem(BaseModel):
    """A metric in the list."""

    id: str = Field(examples=["refund_rate"])
    name: Words = Field(examples=[{"en": "Refund rate", "zh": "退款率"}])
    layer: Literal["base", "operational", "strategic"]
    role: Literal["PI", "KPI", "KGI"]
    unit: str = Field(description="Unit of its values; amounts of money in the shop's currency.", examples=["ratio"])
    direction: str = Field(examples=["lower_is_better"])
    stage: str = Field(examples=["after_sales"])
    category: str = Field(examples=["order"])
    business_line: str = Field(examples=["service"])
    owner: str = Field(examples=["service-team"])
    sensitivity: Literal["public", "internal", "confidential"]
    definition_version: str = Field(description="What values of its newest periods carry.", examples=["1f0c9a2b77d0"])
    slices: list[str] = Field(description="What `dimension` may be, by day.", examples=[["all", "region", "channel"]])
    hour_slices: list[str] = Field(description="The same by hour; empty = no hourly values.", examples=[["all"]])


class MetricPage(BaseModel):
    """A page of metrics, by id."""

    metrics: list[MetricItem]
    next: str | None = Field(description="Cursor of the next page; null = this is the last one.")


class Lineage(BaseModel):
    """Where a metric comes from and who uses it; metrics you may not know of are in none of it."""

    inputs: list[str] = Field(description="Metrics in its formula.", examples=[["refunded_orders", "orders_paid"]])
    upstream: list[str] = Field(description="All metrics it is made of, nearest first.")
    used_by: list[str] = Field(description="Metrics whose formula has it.")
    downstream: list[str] = Field(description="All metrics that would change with it, nearest first.")
    tables: list[str] = Field(description="Raw tables it needs.", examples=[["orders", "refunds"]])


class FormerDefinition(BaseModel):
    """How it was defined for earlier periods."""

    until: date = Field(description="First day that it no longer is for.")
    formula: str
    definition: Words
    definition_version: str


class MetricAnswer(MetricItem):
    """A metric with its definition."""

    definition: Words
    formula: str = Field(
        description="In metric ids; `(…)` stands for one you may not know of.",
        examples=["refunded_orders / orders_paid"],
    )
    denominator: str = Field(description="What is divided by; empty = nothing is.", examples=["orders_paid"])
    clocks: list[Words] = Field(description="By which times its events are put into periods.")
    refresh: list[str] = Field(examples=[["nightly"]])
    freshness_hours: int
    sums_over_days: bool = Field(description="Whether its days may be added up.")
    sums_over: list[str] = Field(description="Dimensions whose members may be added up.")
    former: list[FormerDefinition]
    lineage: Lineage
    complete_until: datetime | None = Field(description="Shop-local end of the last complete period.")
    absent: Words | None = Field(description="Why the installation's source cannot give it; null = it is present.")


class VersionAnswer(BaseModel):
    """One recorded version of a definition."""

    number: int
    version: str = Field(description="What values made by it carry.", examples=["1f0c9a2b77d0"])
    effective_from: date | None = Field(description="First day of its periods; null = all days.")
    recorded_at: datetime = Field(description="UTC.")
    changed: list[str] = Field(
        description="Kinds of change: formula, inputs, targets, owner, effective, text.", examples=[["formula"]]
    )
    is_whole: bool = Field(description="False where it names metrics you may not know of; what follows is null then.")
    who: str | None
    why: str | None
    approved_by: str | None
    diff: dict[str, Any] | None = Field(
        description="Field → [before, after].", examples=[{"owner": ["trade-team", "service-team"]}]
    )
    definition: dict[str, Any] | None


class VersionsAnswer(BaseModel):
    """Every recorded version of a metric, the oldest first."""

    metric: str
    versions: list[VersionAnswer]


class ValueRow(BaseModel):
    """One value of one period of one slice."""

    member: str = Field(examples=["华北"])
    period: datetime = Field(description="Its start, shop-local.", examples=["2026-11-11T00:00:00"])
    value: float | None = Field(description="Null where it is not shown exactly, or is not defined (0 ÷ 0).")
    numerator: float | None = Field(description="Null also where you may not see the metric it is a value of.")
    denominator: float | None = Field(description="As the numerator.")
    level: Literal["exact", "banded", "hidden"] = Field(description="How much of it you may see.")
    band: str | None = Field(description="Where the level is banded: the range it lies in.", examples=["2,000 – 5,000"])
    low: float | None = Field(description="Lower end of the band.")
    high: float | None = Field(description="Upper end of the band.")
    definition_version: str
    computed_at: datetime | None = Field(None, description="With `as_of`: when it was recorded, UTC.")
    run_id: str | None = Field(None, description="With `as_of`: by which run.")


class ValuesPage(BaseModel):
    """A page of values, by member and period. An Arrow stream has the same rows, and the rest as schema metadata."""

    metric: str = Field(examples=["refund_rate"])
    unit: str
    dimension: str
    grain: Literal["day", "hour"]
    version: str = Field(
        description="The published version; a cursor keeps to it.", examples=["20261112T023001-1f0c9a2b"]
    )
    published_at: datetime = Field(description="UTC.")
    complete_until: datetime | None = Field(description="Shop-local end of the last complete period.")
    absent: Words | None
    next: str | None = Field(description="Cursor of the next page; null = this is the last one.")
    values: list[ValueRow]


class Health(BaseModel):
    """Whether the API can answer."""

    status: Literal["ok", "failing"]
    store: bool = Field(description="The operational store can be read.")
    published: bool = Field(description="There are published values.")
    definitions: bool = Field(description="The metric definitions can be used.")


class ParameterProblem(BaseModel):
    """What is wrong with one parameter."""

    parameter: str = Field(examples=["limit"])
    detail: str = Field(examples=["must be at least 1"])


class ProblemDocument(BaseModel):
    """RFC 9457: an error, in the language of Accept-Language (zh or en)."""

    type: str = Field(examples=["urn:metrics:problem:not-found"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path asked for.")
    errors: list[ParameterProblem] | None = None
