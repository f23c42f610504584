"""The playbook file: the starter set is sound, and whatever is wrong is said with file, line and mend."""

from __future__ import annotations

import pytest

from metrics_pipeline.advice.load import load_playbook
from metrics_pipeline.advice.playbook import playbook_schema
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.routing.document import Document
from metrics_pipeline.routing.people import Directory, PeopleFile
from metrics_pipeline.settings import PROJECT_ROOT

RULES = PROJECT_ROOT / "alert_rules"
ENTRY = """entries:
  - id: pause
    when:
      alert: [ad_spend up]
      cause: {dimension: ad_channel}
    action_zh: 暂停 {ad_channel}
    action_en: Pause {ad_channel}
    owner: marketing
    effect_zh: 止损
    effect_en: It stops
    link: docs/runbooks/README.md
"""


@pytest.fixture(scope="module")
def library():
    return Catalogue.read(PROJECT_ROOT / "dbt_project").metrics


@pytest.fixture(scope="module")
def directory():
    return Directory.of(Document(RULES / "_people.yml").read(PeopleFile))


def load(folder, library, directory):
    return load_playbook(folder, metrics=library, directory=directory, root=PROJECT_ROOT)


def test_the_starter_playbook_has_no_problem(library, directory):
    found = load(RULES, library, directory)
    assert [str(one) for one in found.problems] == []
    assert len(found.entries) > 20


@pytest.mark.parametrize(
    ("old", "new", "line", "said", "mend"),
    [
        ("ad_spend up", "ad_spnd up", 4, "did you mean 'ad_spend'", "metrics library list"),
        ("ad_spend up", "ad_spend sideways", 4, "with up or down", "correct it"),
        ("dimension: ad_channel", "dimension: ad_chanel", 5, "did you mean 'ad_channel'", "use one of"),
        ("dimension: ad_channel}", "dimension: ad_channel, share: 3}", 5, "less than or equal to 1", "docs/advice.md"),
        ("Pause {ad_channel}", "Pause {campaign}", 7, "nothing fills {campaign}", "use {ad_channel}, {where}"),
        ("owner: marketing", "owner: marketting", 8, "did you mean 'marketing'", "_people.yml"),
        ("owner: marketing", "ownr: marketing", 8, "did you mean 'owner'", "rename or remove it"),
        ("effect_en: It stops", "", 2, "effect_en is missing", "add it"),
        ("runbooks/README.md", "runbooks/nowhere.md", 11, "no page docs/runbooks/nowhere.md", "write a URL"),
        ("id: pause", "id: Pause it", 2, "should match pattern", "docs/advice.md"),
        ("cause: {dim", "coinciding: earthquake\n      cause: {dim", 5, "'promotion'", "docs/advice.md"),
        ("entries:", "entrys:", 1, "did you mean 'entries'", "rename"),
        ("    owner:", "   owner:", 8, "not valid YAML", "mend the YAML"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_mend(tmp_path, library, directory, old, new, line, said, mend):
    path = tmp_path / "_playbook.yml"
    path.write_text(ENTRY.replace(old, new), "utf-8")
    found = load(tmp_path, library, directory)
    texts = [str(one) for one in found.problems]
    assert any(f"{path}:{line}:" in one and said in one and mend in one for one in texts), texts
    assert not found.entries


def test_a_bad_entry_leaves_the_others(tmp_path, library, directory):
    second = ENTRY.replace("entries:\n", "").replace("id: pause", "id: other").replace("owner: marketing", "ownr: x")
    (tmp_path / "_playbook.yml").write_text(ENTRY + second, "utf-8")
    found = load(tmp_path, library, directory)
    assert list(found.entries) == ["pause"]
    assert found.problems


def test_an_own_file_adds_entries_and_replaces_starter_ones(tmp_path, library, directory):
    (tmp_path / "_playbook.yml").write_text(ENTRY, "utf-8")
    own = ENTRY.replace("Pause {ad_channel}", "Call the agency") + ENTRY.replace("entries:\n", "").replace(
        "id: pause", "id: pause_all"
    )
    (tmp_path / "_playbook_own.yml").write_text(own, "utf-8")
    found = load(tmp_path, library, directory)
    assert not found.problems
    assert {name: one.action_en for name, one in found.entries.items()} == {
        "pause": "Call the agency",
        "pause_all": "Pause {ad_channel}",
    }
    assert found.places["pause"].endswith("_playbook_own.yml:2")


def test_one_id_twice_in_a_file_is_a_problem(tmp_path):
    (tmp_path / "_playbook.yml").write_text(ENTRY + ENTRY.replace("entries:\n", ""), "utf-8")
    assert ["two entries" in str(one) for one in load_playbook(tmp_path).problems] == [True]


def test_no_file_is_an_empty_playbook(tmp_path):
    assert load_playbook(tmp_path) == load_playbook(tmp_path / "nowhere")
    assert not load_playbook(tmp_path).entries


def test_the_schema_names_every_key():
    schema = playbook_schema()
    assert {"alert", "cause", "pyramid", "also", "still", "coinciding"} <= schema["$defs"]["When"]["properties"].keys()
    assert all("description" in one for one in schema["$defs"]["When"]["properties"].values())
