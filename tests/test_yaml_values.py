from __future__ import annotations

import io
from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.yaml_values import MarkedYAMLError, plain, read_yaml

FILES = sorted(
    path
    for folder in ("dbt_project", "alert_rules", "metrics_pipeline")
    for path in (PROJECT_ROOT / folder).rglob("*.yml")
)


def same(value):
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("09:00", "09:00"),
        ("012", 12),
        ("08", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("1.5.3", "1.5.3"),
        ("2025-01-02", date(2025, 1, 2)),
        ("'2025-01-02'", "2025-01-02"),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ("<<", "<<"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert read_yaml(f"a: {text}")["a"] == value
    assert type(read_yaml(f"a: {text}")["a"]) is type(value)


@pytest.mark.parametrize("path", FILES[:12] + FILES[-12:], ids=lambda path: path.name)
def test_a_file_says_the_same_as_to_a_round_trip_parser(path: Path) -> None:
    text = path.read_text("utf-8")
    mine, theirs = read_yaml(text), YAML(typ="rt").load(text)
    assert mine == theirs

    def compare(left, right):
        if isinstance(left, dict):
            for key in left:
                assert left.lc.key(key) == tuple(right.lc.key(key))
                compare(left[key], right[key])
        elif isinstance(left, list):
            for index, (one, other) in enumerate(zip(left, right, strict=True)):
                assert left.lc.item(index) == tuple(right.lc.item(index))
                compare(one, other)

    compare(mine, theirs)


words = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words | st.dates()


@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=12))
@example({":0": None})
def test_what_a_writer_wrote_is_read_again(value: object) -> None:
    stream = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.width = 100_000  # a key on two lines is none
    writer.default_flow_style = False  # `{:0: x}` is YAML 1.2 that libyaml does not read; our writers write blocks
    writer.dump({"value": value}, stream)
    assert plain(read_yaml(stream.getvalue()), key=same) == {"value": value}


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 'found duplicate key "a"'),
        ("a: 1\nb: [1,\n", 2, "did not find expected"),
        ("a: 1\n  b: 2\n", 2, "not allowed"),
        ("? [1]\n: 2\n", 1, "a list or a mapping"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: !!python/object:os.system x\n", 1, "could not determine a constructor"),
    ],
)
def test_what_is_wrong_has_a_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(MarkedYAMLError) as caught:
        read_yaml(text)
    assert caught.value.problem_mark is not None
    assert caught.value.problem_mark.line + 1 == line
    assert problem in str(caught.value.problem)


def test_merged_keys_know_where_they_stand() -> None:
    value = read_yaml("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\n")["other"]
    assert value == {"x": 1, "y": 3}
    assert value.lc.key("x")[0] == 0
    assert value.lc.key("y")[0] == 3
