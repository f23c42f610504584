"""Definitions that leave and come back: dbt's semantic layer and Open Semantic Interchange."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import duckdb
import pytest
from ruamel.yaml import YAML

from metrics_pipeline.library import interchange
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.compile import generated_files, stale_files
from metrics_pipeline.library.compose import saved
from metrics_pipeline.library.dbt_format import export_dbt, read_dbt
from metrics_pipeline.library.definitions import LAYERS
from metrics_pipeline.library.interchange import Plan, plan_import
from metrics_pipeline.library.osi_format import VENDOR, export_osi, format_of, read_osi
from metrics_pipeline.settings import PROJECT_ROOT

META = """
        config:
          meta:
            name_zh: 测试
            definition_zh: 测试口径。
            unit: ratio
            direction: neutral
            stage: conversion
            category: order
            owner: sales
            business_line: trade
            sensitivity: internal
            refresh: [nightly]
            freshness_hours: 30
"""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.read(PROJECT_ROOT / "dbt_project")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the dbt project's models, compiled."""
    target = tmp_path / "project"
    shutil.copytree(PROJECT_ROOT / "dbt_project" / "models", target / "models")
    shutil.copy(PROJECT_ROOT / "dbt_project" / "dbt_project.yml", target)
    return target


@pytest.fixture
def empty_project(project: Path) -> Path:
    """The facts without a single metric."""
    for layer in LAYERS:
        for path in (project / "models" / layer).glob("*"):
            path.unlink()
    return project


def written(path: Path, text: str) -> Path:
    path.write_text(dedent(text), "utf-8")
    return path


def definitions(catalogue: Catalogue) -> dict[str, object]:
    """Every definition without its place."""
    return {one.id: interchange._placeless(one.model_dump()) for one in catalogue.definitions.metrics}


def models_of(catalogue: Catalogue) -> dict[str, str]:
    return {
        path.relative_to(catalogue.definitions.project_dir).as_posix(): text
        for path, text in generated_files(catalogue).items()
    }


def entry(name: str, type_: str, params: str, meta: str = META, more: str = "") -> str:
    return f"""
      - name: {name}
        label: "A name"
        description: "A definition."
        type: {type_}
        type_params: {params}{more}{meta}"""


def document(*entries: str, models: str = "") -> str:
    return f"{models}\n    metrics:{''.join(entries)}\n"


def save(plan: Plan) -> None:
    assert plan.composition is not None
    with saved(plan.composition):
        pass


def messages(plan) -> str:
    return "\n".join(str(problem) for problem in plan.problems)


# -- dbt -------------------------------------------------------------------------------------------------------------


def test_all_metrics_survive_the_way_out_and_in_again(catalogue, empty_project, tmp_path):
    file = written(tmp_path / "all.yml", export_dbt(catalogue))
    before = Catalogue.read(empty_project)
    assert not before.metrics
    plan = plan_import(before, read_dbt(file, before))
    assert not plan.problems, messages(plan)
    assert len(plan.new) == len(catalogue.metrics)
    save(plan)
    after = Catalogue.read(empty_project)
    assert definitions(after) == definitions(catalogue)
    assert {one.id: one.version for one in after.metrics.values()} == {
        one.id: one.version for one in catalogue.metrics.values()
    }
    assert models_of(after) == models_of(catalogue)


def test_a_metric_brings_its_inputs_and_no_more(catalogue):
    found = YAML(typ="safe").load(export_dbt(catalogue, ["order_health"]))
    assert [one["name"] for one in found["metrics"]] == [
        "orders_paid", "orders_placed", "refunded_orders", "payment_conversion_rate", "refund_rate", "order_health",
    ]  # fmt: skip
    measures = {measure["name"] for model in found["semantic_models"] for measure in model["measures"]}
    assert measures == {"orders_paid", "orders_placed", "refunded_orders"}
    assert {one["config"]["meta"]["layer"] for one in found["metrics"]} == {"base", "operational"}


@pytest.mark.slow
def test_dbt_itself_reads_the_exported_file(catalogue, tmp_path):
    """A bare project with the facts as empty models: dbt parses the file and its semantic layer accepts it."""
    project = tmp_path / "bare"
    (project / "models").mkdir(parents=True)
    written(project / "dbt_project.yml", "name: bare\nprofile: bare\nflags: {send_anonymous_usage_stats: false}\n")
    written(project / "profiles.yml", "bare: {target: dev, outputs: {dev: {type: duckdb, path: ':memory:'}}}\n")
    for model in catalogue.definitions.semantic_models:
        written(project / "models" / f"{model.fact}.sql", "select 1 as nothing\n")
    written(project / "models" / "days.sql", "select current_date as day\n")
    written(
        project / "models" / "days.yml",
        "models: [{name: days, time_spine: {standard_granularity_column: day}, columns: [{name: day, granularity: day}]}]\n",
    )
    written(project / "models" / "shared.yml", export_dbt(catalogue))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dbt.cli.main",
            "parse",
            "--project-dir",
            ".",
            "--profiles-dir",
            ".",
            "--no-partial-parse",
        ],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    manifest = json.loads((project / "target" / "semantic_manifest.json").read_text())
    assert {one["name"] for one in manifest["metrics"]} == set(catalogue.metrics)


def test_measures_of_others_are_known_by_what_they_are(catalogue, tmp_path):
    models = """
    semantic_models:
      - name: money
        model: ref("fct_payments")
        defaults: {agg_time_dimension: paid_local_at}
        measures:
          - {name: revenue, agg: sum, expr: "amount"}
          - {name: paid_amount, agg: sum_boolean, expr: is_first_payment}
    """
    text = document(
        entry("their_revenue", "simple", "{measure: revenue}"),
        entry("their_orders", "simple", "{measure: {name: paid_amount}}"),
        models=models,
    )
    plan = plan_import(catalogue, read_dbt(written(tmp_path / "theirs.yml", text), catalogue))
    assert not plan.problems, messages(plan)
    assert plan.metrics["their_revenue"].formula == catalogue.metrics["paid_amount"].formula
    assert plan.metrics["their_orders"].formula == catalogue.metrics["orders_paid"].formula
    assert any("measure revenue is our paid_amount" in note for note in plan.notes)


def test_everything_that_is_wrong_is_told_at_once_with_its_line_and_mend(catalogue, tmp_path):
    models = """
    semantic_models:
      - name: elsewhere
        model: ref('fct_payments')
        defaults: {agg_time_dimension: booked_at}
        measures: [{name: revenue, agg: sum, expr: amount}]
    """
    text = document(
        entry("by_other_clock", "simple", "{measure: revenue}"),
        entry("unknown_measure", "simple", "{measure: order_payed}"),
        entry("filtered", "simple", "{measure: orders_paid}", more="\n        filter: \"{{ Dimension('x') }} = 1\""),
        entry("to_date", "cumulative", "{measure: orders_paid, cumulative_type_params: {grain_to_date: month}}"),
        entry("part_filtered", "ratio", "{numerator: {name: orders_paid, filter: 'x'}, denominator: orders_placed}"),
        entry(
            "odd_layer",
            "simple",
            "{measure: orders_paid}",
            meta=META.replace("name_zh", "layer: top\n            name_zh"),
        ),
        models=models,
    )
    file = written(tmp_path / "theirs.yml", text)
    plan = plan_import(catalogue, read_dbt(file, catalogue))
    told = messages(plan)
    lines = {one.message.split(":")[0]: one.line for one in plan.problems}
    source = file.read_text("utf-8").splitlines()
    for name in ("by_other_clock", "unknown_measure", "filtered", "to_date", "part_filtered", "odd_layer"):
        assert f"name: {name}" in source[lines[name] - 1], (name, told)
    assert "sum of amount in fct_payments by booked_at" in told
    assert "orders_placed" in told.split("order_payed", 1)[1]
    assert "`cumulative_type_params.grain_to_date` cannot be kept" in told
    assert "`numerator.filter`" in told
    assert "base, operational, strategic" in told
    assert all(one.mend for one in plan.problems)
    assert not plan.new


def test_what_the_library_says_of_an_entry_is_told_with_the_place_in_the_file(catalogue, tmp_path):
    text = document(
        entry("bare", "simple", "{measure: orders_paid}", meta=""),
        entry("lost", "ratio", "{numerator: nowhere_defined, denominator: orders_placed}"),
    )
    file = written(tmp_path / "theirs.yml", text)
    plan = plan_import(catalogue, read_dbt(file, catalogue))
    told = messages(plan)
    assert f"{file}:3: bare: `meta.name_zh`: Field required" in told
    broken = document(entry("lost", "ratio", "{numerator: nowhere_defined, denominator: orders_placed}"))
    plan = plan_import(catalogue, read_dbt(written(file, broken), catalogue))
    assert f"{file}:3: lost: unknown metric 'nowhere_defined'" in messages(plan)


def test_a_metric_that_is_defined_otherwise_here_is_not_taken(catalogue, tmp_path):
    text = export_dbt(catalogue, ["refund_rate"]).replace("numerator: refunded_orders", "numerator: orders_placed")
    plan = plan_import(catalogue, read_dbt(written(tmp_path / "changed.yml", text), catalogue))
    assert [one.message for one in plan.problems] == ["refund_rate: is defined otherwise here (numerator)"]
    assert "metrics library propose" in plan.problems[0].mend


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metrics: [", "not valid YAML"),
        ("- a\n- b\n", "expected a mapping"),
        ("models: []\n", "there are no metrics in it"),
        ("metrics: {a: b}\n", "`metrics` is no list"),
        ("metrics: [1, {label: x}]\n", "no mapping with a name"),
    ],
)
def test_files_that_are_none_are_told_in_one_line(catalogue, tmp_path, text, said):
    plan = plan_import(catalogue, read_dbt(written(tmp_path / "x.yml", text), catalogue))
    assert said in messages(plan)
    assert not plan.new


def test_a_name_that_a_model_of_dbt_has_is_refused(catalogue, tmp_path):
    text = document(entry("fct_orders", "simple", "{measure: orders_paid}"))
    plan = plan_import(catalogue, read_dbt(written(tmp_path / "x.yml", text), catalogue))
    assert "there is a dbt model 'fct_orders' already" in messages(plan)


def test_an_entry_that_stands_twice_is_refused(catalogue, tmp_path):
    one = entry("twice", "simple", "{measure: orders_paid}")
    plan = plan_import(catalogue, read_dbt(written(tmp_path / "x.yml", document(one, one)), catalogue))
    assert "stands twice" in messages(plan)


def test_a_save_that_fails_leaves_nothing_behind(project, tmp_path, monkeypatch):
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    catalogue = Catalogue.read(project)
    text = document(
        entry("kept", "simple", "{measure: orders_paid}"), entry("other", "simple", "{measure: orders_placed}")
    )
    plan = plan_import(catalogue, read_dbt(written(tmp_path / "x.yml", text), catalogue))
    assert not plan.problems, messages(plan)
    (project / "models" / "base" / ".other.yml.part").mkdir()
    with pytest.raises(OSError, match="other"):
        save(plan)
    (project / "models" / "base" / ".other.yml.part").rmdir()
    with pytest.raises(RuntimeError, match="dbt cannot read it"), saved(plan.composition):
        raise RuntimeError("dbt cannot read it")
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before
    save(plan)
    assert (project / "models" / "base" / "kept.sql").exists()
    assert not stale_files(Catalogue.read(project))


# -- OSI -------------------------------------------------------------------------------------------------------------

ALLOWED = {
    "document": {"version", "semantic_model", "dialects", "vendors"},
    "model": {"name", "description", "ai_context", "datasets", "relationships", "metrics", "custom_extensions"},
    "dataset": {
        "name", "source", "primary_key", "unique_keys", "description", "ai_context", "fields", "custom_extensions",
    },
    "field": {"name", "expression", "dimension", "label", "description", "ai_context", "custom_extensions"},
    "metric": {"name", "expression", "description", "ai_context", "custom_extensions"},
}  # fmt: skip
"""Every element and its keys; the specification allows no others."""


def test_an_osi_document_has_the_elements_of_the_specification_and_no_others(catalogue):
    found = YAML(typ="safe").load(export_osi(catalogue).text)
    assert found.keys() <= ALLOWED["document"] and found["version"] == "0.1.1"
    (model,) = found["semantic_model"]
    assert model.keys() <= ALLOWED["model"]
    fields = {}
    for dataset in model["datasets"]:
        assert dataset.keys() <= ALLOWED["dataset"]
        names = [field["name"] for field in dataset["fields"]]
        assert len(names) == len(set(names))
        fields[dataset["name"]] = set(names)
        assert set(dataset.get("primary_key", ())) <= {*names, *dataset.get("primary_key", ())}
        for field in dataset["fields"]:
            assert field.keys() <= ALLOWED["field"]
            assert [one.keys() for one in field["expression"]["dialects"]] == [{"dialect", "expression"}]
    for metric in model["metrics"]:
        assert metric.keys() <= ALLOWED["metric"]
        (dialect,) = metric["expression"]["dialects"]
        for dataset, field in re.findall(r"\b([a-z_]+)\.([a-z_]+)\b", dialect["expression"]):
            assert field in fields[dataset], (metric["name"], dataset, field)
        assert [one.keys() for one in metric["custom_extensions"]] == [{"vendor_name", "data"}]
        assert (
            json.loads(metric["custom_extensions"][0]["data"])["version"] == catalogue.metrics[metric["name"]].version
        )


def test_what_osi_cannot_express_is_left_out_with_the_reason(catalogue):
    exported = export_osi(catalogue)
    names = {one["name"] for one in YAML(typ="safe").load(exported.text)["semantic_model"][0]["metrics"]}
    assert names | exported.left_out.keys() == set(catalogue.metrics)
    assert not names & exported.left_out.keys()
    assert exported.left_out["units_sold_28d"] == "a moving window of 28 days"
    assert exported.left_out["stock_cover_days"] == "a moving window of 28 days, by way of units_sold_28d"
    assert "earlier days" in exported.left_out["gmv_growth_7d"]
    assert exported.notes["refund_rate"] == ("its parts go by different times (refund time, payment time)",)


def test_osi_metrics_survive_the_way_out_and_in_again(catalogue, empty_project, tmp_path):
    exported = export_osi(catalogue)
    file = written(tmp_path / "all.osi.yml", exported.text)
    assert format_of(file) == "osi"
    before = Catalogue.read(empty_project)
    plan = plan_import(before, read_osi(file, before))
    assert not plan.problems, messages(plan)
    save(plan)
    after = Catalogue.read(empty_project)
    wanted = set(catalogue.metrics) - exported.left_out.keys()
    assert set(after.metrics) == wanted
    assert definitions(after) == {name: one for name, one in definitions(catalogue).items() if name in wanted}
    assert all(one.version == catalogue.metrics[one.id].version for one in after.metrics.values())


def test_an_expression_that_was_changed_beside_its_definition_is_noticed(catalogue, tmp_path):
    text = export_osi(catalogue, ["refund_rate"]).text
    assert text.count("SUM(CASE WHEN refunds.is_first_refund") == 2
    file = written(
        tmp_path / "x.yml", text.replace("SUM(CASE WHEN refunds.is_first_refund", "SUM(CASE WHEN refunds.sku")
    )
    told = messages(plan_import(catalogue, read_osi(file, catalogue)))
    assert "refund_rate: its expression is" in told and VENDOR in told


FOREIGN = """
    version: 0.1.1
    semantic_model:
      - name: theirs
        datasets:
          - name: p
            source: warehouse.shop.fct_payments
            fields:
              - {{name: money, expression: {{dialects: [{{dialect: ANSI_SQL, expression: amount}}]}}}}
          - name: s
            source: fct_sessions
            fields:
              - {{name: visit, expression: {{dialects: [{{dialect: ANSI_SQL, expression: session_id}}]}}}}
        metrics:
          - name: their_metric
            description: Theirs.
            expression: {{dialects: [{{dialect: {dialect}, expression: "{sql}"}}]}}
            custom_extensions: [{{vendor_name: METRICS_PIPELINE, data: '{data}'}}]
"""


def foreign(tmp_path: Path, sql: str, *, dialect: str = "ANSI_SQL", data: str | None = None) -> Path:
    meta = YAML(typ="safe").load(dedent(META))["config"]["meta"]
    known = json.dumps({"definition": {"label": "Theirs", "config": {"meta": meta}}}, ensure_ascii=False)
    return written(
        tmp_path / "theirs.yml", FOREIGN.format(sql=sql, dialect=dialect, data=known if data is None else data)
    )


@pytest.mark.parametrize(
    ("sql", "kind", "formula"),
    [
        ("sum( p.money )", "simple", "sum(amount) of fct_payments by paid_local_at"),
        ("SUM(p.money) / COUNT(s.visit)", "ratio", "paid_amount / sessions"),
        ("1.0 * sum(p.money) / nullif(count(s.visit), 0)", "ratio", "paid_amount / sessions"),
        ("CAST(SUM(p.money) AS DECIMAL(18, 4)) / (COUNT(s.visit))", "ratio", "paid_amount / sessions"),
    ],
)
def test_expressions_of_others_over_our_facts_are_understood(catalogue, tmp_path, sql, kind, formula):
    plan = plan_import(catalogue, read_osi(foreign(tmp_path, sql), catalogue))
    assert not plan.problems, messages(plan)
    found = plan.metrics["their_metric"]
    assert (found.kind, found.formula, found.name_en) == (kind, formula, "Theirs")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sql": "SUM(p.money) + COUNT(s.visit)"}, "neither a measure of ours nor a ratio"),
        ({"sql": "AVG(p.money)"}, "neither a measure of ours nor a ratio"),
        ({"sql": "SUM(p.money)", "dialect": "MDX"}, "no expression in ANSI_SQL"),
        ({"sql": "SUM(p.money)", "data": "nonsense"}, "is no JSON object"),
        ({"sql": "SUM(p.money)", "data": '{"definition": {}}'}, "`meta.name_zh`: Field required"),
    ],
)
def test_what_cannot_be_understood_of_others_is_told_with_its_line(catalogue, tmp_path, options, said):
    file = foreign(tmp_path, **options)
    plan = plan_import(catalogue, read_osi(file, catalogue))
    (line,) = {one.line for one in plan.problems}
    assert "name: their_metric" in file.read_text("utf-8").splitlines()[line - 1]
    assert said in messages(plan)


def test_another_version_of_osi_is_refused(catalogue, tmp_path):
    file = written(tmp_path / "x.yml", "version: 9.9\nsemantic_model: []\n")
    assert "OSI version 9.9" in messages(plan_import(catalogue, read_osi(file, catalogue)))


@pytest.mark.slow
@pytest.mark.xdist_group("small_shop")
def test_osi_expressions_give_the_numbers_of_the_tables(catalogue, small_shop):
    """Every expression over one dataset, run as it stands over the facts, against the metric's daily totals."""
    (model,) = YAML(typ="safe").load(export_osi(catalogue).text)["semantic_model"]
    datasets = {dataset["name"]: dataset for dataset in model["datasets"]}
    clocks = {one.name: one.local_clock for one in catalogue.definitions.semantic_models}
    compared = 0
    with duckdb.connect(str(small_shop.build_path), read_only=True) as con:
        for metric in model["metrics"]:
            sql = metric["expression"]["dialects"][0]["expression"]
            used = set(re.findall(r"\b([a-z_]+)\.[a-z_]+\b", sql))
            if len(used) > 1:
                continue
            (name,) = used
            fields = ", ".join(
                f"{field['expression']['dialects'][0]['expression']} AS {field['name']}"
                for field in datasets[name]["fields"]
            )
            relation = catalogue.metrics[metric["name"]].relations["day"]
            differing, rows = con.execute(
                f"""
                WITH {name} AS (SELECT {fields} FROM {datasets[name]["source"]}),
                theirs AS (SELECT date_trunc('day', {clocks[name]})::DATE AS day, {sql} AS value FROM {name} GROUP BY 1)
                SELECT count(*) FILTER (abs(theirs.value - ours.value) > 1e-7 * greatest(abs(ours.value), 1)), count(*)
                FROM theirs JOIN {relation} AS ours ON theirs.day = ours.period_start::DATE
                WHERE ours.dimension = 'all' AND ours.grain = 'day' AND ours.value IS NOT NULL
                """
            ).fetchone() or (None, 0)
            assert (differing, rows > 0) == (0, True), metric["name"]
            compared += 1
    assert compared > 30
