"""The layers of the dbt project: refs only ever point to an earlier stage."""

from __future__ import annotations

import re
from pathlib import Path

from metrics_pipeline.settings import PROJECT_ROOT

MODELS = PROJECT_ROOT / "dbt_project" / "models"
STAGES = {"staging": 0, "facts": 1, "cubes": 2, "base": 3, "hourly": 3, "operational": 4, "strategic": 5}
MAY_READ = {
    "staging": set(),
    "facts": {"staging", "facts"},
    "cubes": {"facts"},
    "base": {"cubes", "base", "facts"},
    "hourly": {"cubes", "hourly", "facts"},
    "operational": {"base", "operational"},
    "strategic": {"base", "operational", "strategic"},
}


def layer_of(path: Path) -> str:
    return path.relative_to(MODELS).parts[0]


def references() -> list[tuple[Path, str, str]]:
    """(model file, kind ref|source, name) of every reference."""
    found = []
    for path in sorted(MODELS.rglob("*.sql")):
        text = re.sub(r"\{#.*?#\}", "", path.read_text("utf-8"), flags=re.DOTALL)
        found += [(path, "ref", name) for name in re.findall(r"\bref\('(\w+)'\)", text)]
        found += [(path, "source", name) for name in re.findall(r"\bsource\('raw',\s*'(\w+)'\)", text)]
    return found


def test_every_reference_points_to_an_earlier_stage() -> None:
    layers = {path.stem: layer_of(path) for path in MODELS.rglob("*.sql")}
    wrong = [
        f"{path.relative_to(MODELS)} reads {layers[name]}/{name}"
        for path, kind, name in references()
        if kind == "ref" and layers[name] not in MAY_READ[layer_of(path)]
    ]
    assert wrong == []


def test_a_metric_reads_facts_only_to_know_which_periods_are_complete() -> None:
    facts = {path.stem for path in (MODELS / "facts").glob("*.sql")}
    wrong = [
        f"{path.name} reads {name}"
        for path, _, name in references()
        if layer_of(path) in {"base", "hourly"} and name in facts - {"dim_complete_periods"}
    ]
    assert wrong == []


def test_only_staging_reads_raw() -> None:
    assert {layer_of(path) for path, kind, _ in references() if kind == "source"} == {"staging"}


def test_every_model_has_a_description() -> None:
    described = set()
    for path in MODELS.rglob("*.yml"):
        described |= set(re.findall(r"^  - name: (\w+)\n    description:", path.read_text("utf-8"), flags=re.MULTILINE))
    described |= {"dim_days"} if "name: dim_days" in (MODELS / "facts/_time_spine.yml").read_text("utf-8") else set()
    assert sorted({path.stem for path in MODELS.rglob("*.sql")} - described) == []


def test_models_read_no_table_by_name() -> None:
    """A table named in clear would be lineage that nobody sees."""
    wrong = [
        path.name
        for path in MODELS.rglob("*.sql")
        if re.search(r"\b(?:from|join)\s+(?:raw|staging|facts|cubes|base|operational)\.", path.read_text("utf-8"))
    ]
    assert wrong == []
