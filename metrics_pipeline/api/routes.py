"""The addresses below `/v1`. Every one but health passes the door."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final

import duckdb
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from metrics_pipeline.access.model import Subjects
from metrics_pipeline.access.reader import GuardedValues, NotPublished, UnknownMetric, VersionGone
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.api.cursors import Cursor, period_of, question_of, read_cursor
from metrics_pipeline.api.door import ApiDoor, Gate
from metrics_pipeline.api.problems import MEDIA_TYPE, Problem, bad_parameter
from metrics_pipeline.api.shapes import (
    FormerDefinition,
    Health,
    Lineage,
    MetricAnswer,
    MetricItem,
    MetricPage,
    MetricsQuery,
    ProblemDocument,
    ValuesPage,
    ValuesQuery,
    VersionAnswer,
    VersionsAnswer,
    Words,
)
from metrics_pipeline.api.values import Page, as_arrow, as_json, question_in, read_page
from metrics_pipeline.library.catalogue import Metric
from metrics_pipeline.library.definitions import DefinitionError
from metrics_pipeline.library.versions import what_changed
from metrics_pipeline.settings import Settings
from metrics_pipeline.store.metric_versions import VersionRow, versions_of
from metrics_pipeline.warehouse.manifest import MetricState

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"
VARY: Final = "Accept, Accept-Language, Authorization"

router = APIRouter(prefix="/v1")
_bearer = HTTPBearer(auto_error=False, description="A token of `metrics api token create`.", scheme_name="token")


def opened_door(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> ApiDoor:
    """Who asks, and what they may see."""
    gate: Gate = request.app.state.gate
    address = request.client.host if request.client else ""
    return gate.enter(None if given is None else given.credentials, address)


Door = Annotated[ApiDoor, Depends(opened_door)]
MetricId = Annotated[str, Path(description="Id of a metric.", examples=["refund_rate"])]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    said = {
        304: "Not modified: what `If-None-Match` names is still what there is.",
        401: "No token, or one that holds no longer.",
        404: "There is no such metric, or you may not know of it: the answer is the same.",
        406: "`Accept` names neither JSON nor an Arrow stream.",
        410: "The version of the cursor is not kept any more; begin again without it.",
        422: "A parameter that cannot be used; `errors` says which and why.",
        429: "Too many requests of this token; `Retry-After` says how many seconds to wait.",
        503: "Nothing is published yet, or the definitions are being mended.",
    }
    content = {MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")}}
    for document in content.values():
        document["schema"].pop("$defs", None)
    return {
        status: {"description": said[status], **({} if status == 304 else {"content": content})} for status in statuses
    }


@router.get(
    "/health",
    tags=["health"],
    summary="Whether the API can answer",
    response_model=Health,
    responses={503: {"description": "Something it needs cannot be read.", "model": Health}},
)
def health(request: Request) -> JSONResponse:
    """Needs no token, and says nothing but yes or no."""
    gate: Gate = request.app.state.gate
    found = {"store": True, "published": True, "definitions": True}
    try:
        with gate.store.reading() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError:
        found["store"] = False
    try:
        nobody = Viewer(Subjects(""), {}, gate.now())
        GuardedValues.for_viewer(gate.settings.published_dir, nobody)
    except NotPublished:
        found["published"] = False
    try:
        gate.library.definitions()
    except (DefinitionError, OSError):
        found["definitions"] = False
    is_well = all(found.values())
    content = {"status": "ok" if is_well else "failing", **found}
    return JSONResponse(content, 200 if is_well else 503, {"Cache-Control": "no-store"})


@router.get(
    "/metrics",
    tags=["library"],
    summary="The metrics you may know of, by id",
    response_model=MetricPage,
    responses=_problems(304, 401, 422, 429, 503),
)
def list_metrics(request: Request, door: Door, query: Annotated[MetricsQuery, Query()]) -> Response:
    """Filters are met all at once; `q` looks at ids, names and definitions in both languages."""
    digest = question_of("metrics", query.layer, query.line, query.q)
    after = "" if query.cursor is None else read_cursor(query.cursor, digest, 1).after[0]
    tag = _tag(door, "metrics", digest, after, query.limit)
    if (unchanged := _unchanged(request, tag)) is not None:
        return unchanged
    found = [one for name, one in sorted(door.catalogue.metrics.items()) if name > after and _meets(one, query)]
    page = found[: query.limit]
    following = str(Cursor("", digest, (page[-1].id,))) if len(found) > query.limit else None
    answer = MetricPage(metrics=[MetricItem(**_item(one, door.settings)) for one in page], next=following)
    return _answer(request, answer.model_dump_json().encode(), tag, following)


@router.get(
    "/metrics/{metric}",
    tags=["library"],
    summary="A metric's definition, formula, version and lineage",
    response_model=MetricAnswer,
    responses=_problems(304, 401, 404, 429, 503),
)
def show_metric(request: Request, door: Door, metric: MetricId) -> Response:
    """Metrics you may not know of stand in no formula and no lineage."""
    one = door.metric(metric)
    state, version = _state(door, metric)
    tag = _tag(door, "metric", metric, version)
    if (unchanged := _unchanged(request, tag)) is not None:
        return unchanged
    return _answer(request, _metric_answer(door, one, state).model_dump_json().encode(), tag)


@router.get(
    "/metrics/{metric}/versions",
    tags=["library"],
    summary="Every recorded version of a metric's definition",
    response_model=VersionsAnswer,
    responses=_problems(304, 401, 404, 429, 503),
)
def show_versions(request: Request, door: Door, metric: MetricId) -> Response:
    """What changed, since which day, who, why and approved by whom; the oldest first, all of them."""
    door.metric(metric)
    with door.store.reading() as connection:
        rows = versions_of(connection, metric)
    tag = _tag(door, "versions", metric, len(rows))
    if (unchanged := _unchanged(request, tag)) is not None:
        return unchanged
    answer = VersionsAnswer(metric=metric, versions=[_version_answer(door, row) for row in rows])
    return _answer(request, answer.model_dump_json().encode(), tag)


@router.get(
    "/metrics/{metric}/values",
    tags=["values"],
    summary="Published values of a metric, as JSON or as an Arrow stream",
    response_model=ValuesPage,
    responses={
        200: {
            "description": "A page of values. `Link` (rel=next) leads to the next one; `ETag` is that of the version.",
            "content": {ARROW: {"schema": {"type": "string", "format": "binary"}}},
        },
        **_problems(304, 401, 404, 406, 410, 422, 429, 503),
    },
)
def show_values(request: Request, door: Door, metric: MetricId, query: Annotated[ValuesQuery, Query()]) -> Response:
    """By member and period. Slices you may not see are left out, exactly like those that there are not. All pages of a
    walk are of one published version; while it is kept (an hour at least), a new one changes nothing.
    """
    one = door.metric(metric)
    media = _media(request)
    slices = one.hour_slices if query.grain == "hour" else one.slices
    if query.dimension not in slices:
        listed = ", ".join(slices) or "-"
        raise bad_parameter(
            "dimension",
            f"{metric} has no values of it by {query.grain}; it has: {listed}",
            f"{metric} 没有该维度的{'小时' if query.grain == 'hour' else '日'}数据;可用:{listed}",
        )
    digest = question_of(metric, query.model_dump(exclude={"limit", "cursor"}))
    cursor = None if query.cursor is None else read_cursor(query.cursor, digest, 2)
    values = door.values(metric, None if cursor is None else cursor.version)
    tag = _tag(door, "values", digest, values.version, query.cursor, query.limit, media)
    asked = question_in(metric, query, door.settings, _complete_until(values, metric))
    if asked.start is not None and asked.until is not None and asked.start >= asked.until:
        raise bad_parameter("until", "must be after `from`; it is exclusive", "应晚于 `from`(不含该时刻)")
    member = "all" if query.dimension == "all" else query.member
    if member is not None and not door.viewer.decide("read", metric, query.dimension, member).is_allowed:
        door.deny(metric, asked.where)
    if (unchanged := _unchanged(request, tag)) is not None:
        return unchanged
    reader: duckdb.DuckDBPyConnection = request.app.state.reader
    try:
        with reader.cursor() as con:
            after = None if cursor is None else (cursor.after[0], period_of(cursor.after[1]))
            page = read_page(values, con, asked, limit=query.limit, digest=digest, after=after)
    except UnknownMetric:
        raise _not_ready(f"{metric} is not published yet", f"{metric} 尚未发布") from None
    door.read(metric, asked.where, rows=page.rows.num_rows)
    return _values_answer(request, door, one, values, page, query, media, tag)


def _values_answer(  # noqa: PLR0917 - parts of one answer
    request: Request,
    door: ApiDoor,
    one: Metric,
    values: GuardedValues,
    page: Page,
    query: ValuesQuery,
    media: str,
    tag: str,
) -> Response:
    state = values.metrics.get(one.id)
    head = {
        "metric": one.id,
        "unit": _unit(one, door.settings),
        "dimension": query.dimension,
        "grain": query.grain,
        "version": values.version,
        "published_at": f"{values.created_at.isoformat()}Z",
        "complete_until": None if state is None else state.complete_until,
        "absent": _absent(state),
    }
    content = as_arrow(page, head) if media == ARROW else as_json(page, head)
    return _answer(request, content, tag, page.next, media)


# -- pieces of answers ---------------------------------------------------------------------------------------------


def _meets(metric: Metric, query: MetricsQuery) -> bool:
    if query.layer not in (None, metric.layer) or query.line not in (None, metric.business_line):
        return False
    texts = (metric.id, metric.name_en, metric.name_zh, metric.definition_en, metric.definition_zh)
    return not query.q or any(query.q.casefold() in one.casefold() for one in texts)


def _item(metric: Metric, settings: Settings) -> dict[str, Any]:
    return {
        "id": metric.id,
        "name": Words(en=metric.name_en, zh=metric.name_zh),
        "layer": metric.layer,
        "role": metric.role,
        "unit": _unit(metric, settings),
        "direction": metric.direction,
        "stage": metric.stage,
        "category": metric.category,
        "business_line": metric.business_line,
        "owner": metric.owner,
        "sensitivity": metric.sensitivity,
        "definition_version": metric.version,
        "slices": list(metric.slices),
        "hour_slices": list(metric.hour_slices),
    }


def _metric_answer(door: ApiDoor, one: Metric, state: MetricState | None) -> MetricAnswer:
    known = door.catalogue
    former = [
        FormerDefinition(
            until=until,
            formula=before.formula,
            definition=Words(en=before.definition_en, zh=before.definition_zh),
            definition_version=before.version,
        )
        for until, before in one.former
    ]
    return MetricAnswer(
        **_item(one, door.settings),
        definition=Words(en=one.definition_en, zh=one.definition_zh),
        formula=one.formula,
        denominator=one.denominator,
        clocks=[Words(en=clock.en, zh=clock.zh) for clock in one.clocks],
        refresh=list(one.refresh),
        freshness_hours=one.freshness_hours,
        sums_over_days=one.sums_over_days,
        sums_over=list(one.sums_over),
        former=former,
        lineage=Lineage(
            inputs=list(one.inputs),
            upstream=list(known.upstream(one.id)),
            used_by=list(known.downstream[one.id]),
            downstream=list(known.users(one.id)),
            tables=list(one.tables),
        ),
        complete_until=None if state is None else state.complete_until,
        absent=_absent(state),
    )


def _version_answer(door: ApiDoor, row: VersionRow) -> VersionAnswer:
    """A recorded version; whole only for who may know of every metric that it and the one before are made of."""
    before, after = row.diff.get("inputs") or ({}, {})
    is_whole = door.knows_all([*(before or {}), *(after or {}), *(row.definition.get("inputs") or {})])
    return VersionAnswer(
        number=row.number,
        version=row.version,
        effective_from=row.effective_from,
        recorded_at=row.at,
        changed=list(what_changed(row.diff)),
        is_whole=is_whole,
        who=row.who if is_whole else None,
        why=row.why if is_whole else None,
        approved_by=row.approved_by if is_whole else None,
        diff=dict(row.diff) if is_whole else None,
        definition=dict(row.definition) if is_whole else None,
    )


def _state(door: ApiDoor, metric: str) -> tuple[MetricState | None, str]:
    """What is published of a metric, and in which version; before the first publish nothing is."""
    try:
        values = door.values(metric)
    except NotPublished:
        return None, ""
    return values.metrics.get(metric), values.version


def _complete_until(values: GuardedValues, metric: str) -> Any:
    state = values.metrics.get(metric)
    return None if state is None else state.complete_until


def _absent(state: MetricState | None) -> dict[str, str] | Any:
    return {"en": state.absent_en or "", "zh": state.absent_zh or ""} if state and state.is_absent else None


def _unit(metric: Metric, settings: Settings) -> str:
    return settings.installation.currency if metric.unit == "currency" else metric.unit


# -- HTTP ----------------------------------------------------------------------------------------------------------


def _media(request: Request) -> str:
    """JSON or Arrow, as `Accept` says first. Raises `Problem` when it says neither."""
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "*/*").split(",")]
    for one in accepted:
        if one == ARROW:
            return ARROW
        if one in (JSON, "application/*", "*/*", ""):
            return JSON
    raise Problem("not-acceptable", f"Accept must name {JSON} or {ARROW}", f"Accept 应为 {JSON} 或 {ARROW}")


def _tag(door: ApiDoor, *parts: object) -> str:
    """An entity tag: of the version and everything else that an answer follows from."""
    return '"' + hashlib.sha256(json.dumps([door.rights, *parts]).encode()).hexdigest()[:32] + '"'


def _unchanged(request: Request, tag: str) -> Response | None:
    """304, when the asker has what it would get."""
    held = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return Response(status_code=304, headers=_headers(tag)) if tag in held else None


def _headers(tag: str) -> dict[str, str]:
    return {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": VARY, "X-Content-Type-Options": "nosniff"}


def _answer(request: Request, content: bytes, tag: str, following: str | None = None, media: str = JSON) -> Response:
    headers = _headers(tag)
    if following is not None:
        address = request.url.include_query_params(cursor=following)
        headers["Link"] = f'<{address.path}?{address.query}>; rel="next"'
    return Response(content, media_type=media, headers=headers)


def _not_ready(en: str, zh: str) -> Problem:
    return Problem("not-ready", en, zh, {"Retry-After": "60"})


def problem_of(error: Exception) -> Problem:
    """A known failure as a problem; it names no path and no file."""
    match error:
        case VersionGone():
            return Problem(
                "version-gone",
                "the published version of this cursor is not kept any more; begin again without a cursor",
                "该游标所属的发布版本已不再保留;请去掉游标重新开始",
            )
        case NotPublished():
            return _not_ready(
                "nothing is published yet; `metrics nightly` publishes", "尚无已发布的数据;请先运行 `metrics nightly`"
            )
        case _:
            return _not_ready(
                "the metric definitions cannot be used; `metrics library lint` says why",
                "指标定义暂不可用;`metrics library lint` 会说明原因",
            )
