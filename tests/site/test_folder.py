"""The site's folder: whole or as it was, and never somebody else's."""

from __future__ import annotations

import pytest

from metrics_pipeline.site.folder import MARK, NotOurFolder, replace_folder


def tree(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_pages_of_what_is_gone_are_removed(tmp_path):
    site = tmp_path / "deep" / "site"
    assert replace_folder(site, [("index.html", "one"), ("metrics/a.html", "a")]) == 2
    replace_folder(site, [("index.html", "two")])
    assert tree(site) == {"index.html", MARK}
    assert (site / "index.html").read_text() == "two"
    assert [path.name for path in site.parent.iterdir()] == ["site"]


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(NotOurFolder, match="no catalogue site"):
        replace_folder(tmp_path, [("index.html", "x")])
    assert tree(tmp_path) == {"thesis.txt"}
    (tmp_path / MARK).write_text("{}")
    with pytest.raises(NotOurFolder):
        replace_folder(tmp_path, [("index.html", "x")])
    with pytest.raises(NotOurFolder, match="is a file"):
        replace_folder(tmp_path / "thesis.txt", [])


def test_a_failure_leaves_the_former_site(tmp_path):
    site = tmp_path / "site"
    replace_folder(site, [("index.html", "good")])

    def broken():
        yield "index.html", "bad"
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        replace_folder(site, broken())
    assert (site / "index.html").read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "site").mkdir()
    replace_folder(tmp_path / "site", [("index.html", "x")])
    assert tree(tmp_path / "site") == {"index.html", MARK}
