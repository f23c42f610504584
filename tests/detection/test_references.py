from __future__ import annotations

from datetime import date

import pytest

from metrics_pipeline.detection.references import Reference, ReferenceFileError, digest_of, load_references
from metrics_pipeline.settings import PROJECT_ROOT

HEAD = "metric,dimension,member,target,valid_from,valid_to\n"


def write(tmp_path, *rows: str, head: str = HEAD, name: str = "metric_targets.csv"):
    (tmp_path / name).write_text(head + "\n".join(rows) + "\n", "utf-8")
    return tmp_path


def test_rows_become_references_with_their_days(tmp_path):
    write(
        tmp_path, "gmv,all,all,100,2025-01-01,2025-12-31", "gmv,all,all,120,2026-01-01,", "gmv,region,*,9.5,2025-01-01,"
    )
    write(
        tmp_path, "gmv,all,all,7,2025-01-01,,somebody", name="industry_benchmarks.csv",
        head="metric,dimension,member,benchmark,valid_from,valid_to,source\n",
    )  # fmt: skip
    found = load_references(tmp_path)
    assert len(found) == 4
    assert found[0].kind == "benchmark"
    assert Reference("target", "gmv", "all", "all", date(2026, 1, 1), date.max, 120) in found
    assert digest_of(found, "target", "gmv", "all") != digest_of(found, "target", "gmv", "region")
    assert load_references(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("gmv,all,all,much,2025-01-01,", "target is a number"),
        ("gmv,all,all,0,2025-01-01,", "other than 0"),
        ("gmv,all,all,nan,2025-01-01,", "finite"),
        ("gmv,all,all,1,1.1.2025,", "YYYY-MM-DD"),
        ("gmv,all,all,1,2025-02-01,2025-01-01", "lies before"),
        (",all,all,1,2025-02-01,", "metric is empty"),
        ("gmv,region,all,1,2025-02-01,", "write * for every member"),
        ("gmv,all", "is empty"),
    ],
)
def test_a_bad_row_is_told_with_its_line(tmp_path, row, part):
    with pytest.raises(ReferenceFileError, match=r"metric_targets\.csv:3: ") as caught:
        load_references(write(tmp_path, "gmv,all,all,1,2024-01-01,2024-02-01", row))
    assert part in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    rows = ("gmv,all,all,1,2025-01-01,", "gmv,all,all,2,2025-06-01,", "x,all,all,no,2025-06-01,")
    with pytest.raises(ReferenceFileError) as caught:
        load_references(write(tmp_path, *rows))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0].rpartition(":")[2] for line in lines] == ["4", "3"]
    assert "valid twice from 2025-06-01 on, here and in line 2" in lines[1]


def test_a_missing_column_is_told(tmp_path):
    with pytest.raises(ReferenceFileError, match="column target, valid_to is missing"):
        load_references(write(tmp_path, "gmv,all,all,2025-01-01", head="metric,dimension,member,valid_from\n"))


def test_the_shipped_seeds_can_be_read():
    assert load_references(PROJECT_ROOT / "dbt_project" / "seeds")
