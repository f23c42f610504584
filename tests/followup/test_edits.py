"""A rule file with some keys changed: comments stay, lint comes first."""

from __future__ import annotations

import shutil

import pytest

from metrics_pipeline.followup.edits import EditError, edit_rule, write
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.seeds import read_seeds
from metrics_pipeline.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def known():
    project = PROJECT_ROOT / "dbt_project"
    return Catalogue.read(project), read_seeds(project, "Asia/Shanghai")


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(PROJECT_ROOT / "alert_rules", tmp_path / "alert_rules")
    return tmp_path / "alert_rules"


def changed_lines(edit) -> list[str]:
    return [line[1:].strip() for line in edit.diff().splitlines()[2:] if line[:1] == "+"]


def test_only_the_changed_line_changes_and_comments_stay(folder, known):
    edit = edit_rule(
        folder, *known, "payment_conversion_drop_hourly", {"yellow_if": "< -4", "recover_if": {"yellow": "> -1.5", "red": "> -2"}}
    )  # fmt: skip
    assert changed_lines(edit) == [
        'yellow_if: "< -4"',
        'recover_if: {yellow: "> -1.5", red: "> -2"} # an hour with few orders is no proof that payments are back',
    ]
    assert edit.before.rule_hash != edit.after.rule_hash
    write(edit)
    assert load_rules(folder, *known)["payment_conversion_drop_hourly"].rule_hash == edit.after.rule_hash
    again = edit_rule(folder, *known, "payment_conversion_drop_hourly", {"yellow_if": "< -4"})
    assert again.is_written


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"for": 2}, "for: 2"),
        ({"min_sample": {"metric": "orders_placed", "gte": 150}}, 'min_sample: {metric: "orders_placed", gte: 150}'),
        ({"promotions": {"618": {"mute": True}}}, 'promotions: {"618": {mute: true}}'),
        ({"overrides": [{"where": {"region": "西北"}, "mute": True}]}, "- {where: {region: 西北}, mute: true}"),
    ],
)
def test_new_keys_are_written_as_people_write_them(folder, known, changes, line):
    rule = "payment_conversion_drop_by_region" if "overrides" in changes else "payment_conversion_drop"
    edit = edit_rule(folder, *known, rule, changes)
    assert line.replace('"orders_placed"', "orders_placed") in changed_lines(edit)
    assert not any(line.startswith("-") for line in edit.diff().splitlines()[2:] if "min_sample" not in line)


def test_what_lint_refuses_is_told_with_the_file_and_changes_nothing(folder, known):
    with pytest.raises(EditError, match=rf"{folder}/payments.yml:\d+: payment_conversion_drop: "):
        edit_rule(folder, *known, "payment_conversion_drop", {"yellow_if": "< -20"})
    with pytest.raises(EditError, match="no rule 'payment_conversion'"):
        edit_rule(folder, *known, "payment_conversion", {"for": 2})
    with pytest.raises(EditError, match="owner cannot be changed"):
        edit_rule(folder, *known, "payment_conversion_drop", {"owner": "me"})


def test_a_key_from_the_defaults_is_taken_away_by_null(folder, known):
    path = folder / "payments.yml"
    text = path.read_text("utf-8").replace(
        'no_data: {due: "09:00"}\n', 'no_data: {due: "09:00"}\n      keep_firing_for: 2\n'
    )
    path.write_text(text, "utf-8")
    edit = edit_rule(folder, *known, "payment_conversion_drop", {"red_if": None})
    assert edit.after.red_if is None and changed_lines(edit) == []


def test_a_file_laid_out_otherwise_keeps_its_layout(folder, known):
    path = folder / "payments.yml"
    path.write_text(path.read_text("utf-8").replace("labels: {scenario", "labels:   {scenario"), "utf-8")
    edit = edit_rule(folder, *known, "payment_conversion_drop", {"yellow_if": "< -5"})
    assert changed_lines(edit) == ['yellow_if: "< -5"']


def test_a_file_that_was_changed_meanwhile_is_not_overwritten(folder, known):
    edit = edit_rule(folder, *known, "payment_conversion_drop", {"for": 2})
    edit.path.write_text(edit.former + "# mine\n", "utf-8")
    with pytest.raises(EditError, match="changed meanwhile"):
        write(edit)
