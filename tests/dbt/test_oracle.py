"""MetricFlow, an independent reading of the same definitions, must give the numbers that our tables hold.

It makes its own SQL from the semantic layer, straight from the facts: no cube, no zero filling, no window. Compared are
all daily totals, all hourly totals, and every single-dimension slice that MetricFlow can express (its measures must
share a semantic model). Where nothing happened MetricFlow has no row and our tables a 0, or no value.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest

from metrics_pipeline.library.catalogue import Catalogue, Metric
from metrics_pipeline.settings import PROJECT_ROOT, Settings
from metrics_pipeline.warehouse.transform import ensure_manifest

sys.path.insert(0, str(Path(__file__).parent))
import composed

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("small_shop")]

TOLERANCE = 1e-7
CATALOGUE = Catalogue.read(PROJECT_ROOT / "dbt_project")


def models_of(catalogue: Catalogue, metric: Metric) -> set[str]:
    """Names of the semantic models that a metric's measures come from."""
    if not metric.inputs:
        definition = catalogue.written[metric.id]
        measure = definition.conversion.base_measure if definition.conversion else definition.measure
        return {
            model.name
            for model in catalogue.definitions.semantic_models
            for one in model.measures
            if one.name == measure
        }
    return {name for source in metric.inputs for name in models_of(catalogue, catalogue.metrics[source])}


def comparisons(catalogue: Catalogue, metric: Metric) -> Iterator[tuple[str, str, str]]:
    """(grain, dimension, MetricFlow's name of the dimension)."""
    for grain in metric.grains:
        yield grain, "all", ""
    models = models_of(catalogue, metric)
    if len(models) > 1:
        return
    for dimension in metric.slices:
        if dimension != "all" and "|" not in dimension:
            yield "day", dimension, f"{ENTITIES[next(iter(models))]}__{dimension}"


def entities() -> dict[str, str]:
    """Semantic model → its primary entity, as written."""
    from ruamel.yaml import YAML

    document = YAML(typ="safe").load((PROJECT_ROOT / "dbt_project/models/facts/_semantic.yml").read_text("utf-8"))
    return {
        model["name"]: model.get("primary_entity") or model["entities"][0]["name"]
        for model in document["semantic_models"]
    }


ENTITIES = entities()


@pytest.fixture(scope="module")
def manifest(small_shop: Settings) -> str:
    """The semantic manifest that dbt wrote for the shop."""
    ensure_manifest(small_shop)
    return next(Path(small_shop.dbt_target_dir).rglob("semantic_manifest.json")).read_text("utf-8")


@pytest.fixture(scope="module")
def engine(manifest: str) -> object:
    """A MetricFlow engine over the definitions as they are."""
    return engine_of(manifest)


@pytest.fixture(scope="module")
def engine_by_day(manifest: str) -> object:
    """The same with clocks that tick once a day.

    MetricFlow cannot express a moving sum by day of a measure whose clock has hours: it wants a time spine by hour and
    takes the sum that ends with the first hour of a day for the day's.
    """
    document = json.loads(manifest)
    for model in document["semantic_models"]:
        for dimension in model["dimensions"]:
            if dimension["type"] == "time":
                dimension["type_params"]["time_granularity"] = "day"
    return engine_of(json.dumps(document))


@pytest.fixture(scope="module")
def engine_by_hour(manifest: str, build: duckdb.DuckDBPyConnection) -> object:
    """The same with a time spine by hour, without which MetricFlow knows no hour of days before."""
    build.execute(
        "create temp table hours as select range as hour_start "
        "from range(timestamp '2025-08-01', timestamp '2026-01-01', interval 1 hour)"
    )
    document = json.loads(manifest)
    document["project_configuration"]["time_spines"] = [
        {
            "node_relation": {
                "alias": "hours",
                "schema_name": "main",
                "database": "temp",
                "relation_name": "temp.main.hours",
            },
            "primary_column": {"name": "hour_start", "time_granularity": "hour"},
            "custom_granularities": [],
        }
    ]
    return engine_of(json.dumps(document))


def engine_of(manifest: str) -> object:
    from metricflow.engine.metricflow_engine import MetricFlowEngine
    from metricflow.protocols.sql_client import SqlEngine
    from metricflow.sql.render.duckdb_renderer import DuckDbSqlPlanRenderer
    from metricflow_semantics.model.dbt_manifest_parser import parse_manifest_from_dbt_generated_manifest
    from metricflow_semantics.model.semantic_manifest_lookup import SemanticManifestLookup

    client = SimpleNamespace(sql_engine_type=SqlEngine.DUCKDB, sql_plan_renderer=DuckDbSqlPlanRenderer())
    parsed = parse_manifest_from_dbt_generated_manifest(manifest_json_string=manifest)
    return MetricFlowEngine(SemanticManifestLookup(parsed), client)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def build(small_shop: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(small_shop.build_path), read_only=True) as con:
        yield con


def metricflow_sql(engine: object, metric: str, grain: str, dimension: str) -> str:
    from metricflow.engine.metricflow_engine import MetricFlowQueryRequest

    group_by = [f"metric_time__{grain}", *([dimension] if dimension else [])]
    request = MetricFlowQueryRequest.create(metric_names=[metric], group_by_names=group_by)
    sql: str = engine.explain(request).sql_statement.sql.rstrip().rstrip(";")  # type: ignore[attr-defined]
    return sql


@pytest.mark.parametrize(
    ("metric", "grain", "dimension", "theirs"),
    [(metric.id, *how) for metric in CATALOGUE.metrics.values() for how in comparisons(CATALOGUE, metric)],
)
def test_metricflow_agrees(
    engine: object, build: duckdb.DuckDBPyConnection, metric: str, grain: str, dimension: str, theirs: str
) -> None:
    assert differences(engine, build, CATALOGUE.metrics[metric], grain, dimension, theirs) == []


@pytest.mark.parametrize("asked", [request.id for request in composed.REQUESTS])
def test_metricflow_agrees_with_what_was_composed(
    engine: object,
    engine_by_day: object,
    engine_by_hour: object,
    build: duckdb.DuckDBPyConnection,
    small_shop: Settings,
    asked: str,
) -> None:
    """The metric that was asked for, and the moving sums that came with it: in total and by slice, by day and by hour."""
    catalogue = Catalogue.read(small_shop.dbt_project_dir)
    whole = (*catalogue.upstream(asked), asked)
    by_day = engine_by_day if any(catalogue.written[name].kind == "cumulative" for name in whole) else engine
    wrong = {
        (metric, *how): found
        for metric in whole
        if metric not in CATALOGUE.metrics
        for how in comparisons(catalogue, catalogue.metrics[metric])
        if (
            found := differences(engine_by_hour if how[0] == "hour" else by_day, build, catalogue.metrics[metric], *how)
        )
    }
    assert wrong == {}


def differences(
    engine: object, build: duckdb.DuckDBPyConnection, metric: Metric, grain: str, dimension: str, theirs: str
) -> list[tuple[object, ...]]:
    """The first rows in which the metric's table and MetricFlow do not say the same."""
    relation = metric.relations[grain]  # type: ignore[index]
    member = f'"{theirs}"' if theirs else "'all'"
    build.execute(
        f"""
        create or replace temp table compared as
        with
            oracle as (
                select metric_time__{grain} as period_start, {member} as member, {metric.id} as value
                from ({metricflow_sql(engine, metric.id, grain, theirs)})
            ),
            ours as (select period_start, member, value from {relation} where dimension = ?),
            complete as (select distinct period_start from {relation} where dimension = 'all')
        select period_start, member, oracle.value as theirs, ours.value as ours
        from oracle
        full outer join ours using (period_start, member)
        semi join complete using (period_start)
        """,
        [dimension],
    )
    row = build.execute("select count(theirs), count(*) from compared").fetchone()
    assert row is not None
    assert row[0] > 0, "MetricFlow gave no value to compare with"
    return build.execute(
        f"""
        select * from compared
        where
            theirs is not null
            and (ours is null or abs(ours - theirs) > {TOLERANCE} * greatest(1, abs(theirs)))
            -- what MetricFlow does not know we may only know as a 0 or as made of zeros
            or (theirs is null and ours is not null and ours <> 0 and {not metric.inputs})
        limit 5
        """
    ).fetchall()
