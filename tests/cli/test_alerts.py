"""`metrics alerts` and `metrics orders` on a store with a story in it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.cli.app import app
from metrics_pipeline.settings import load_settings
from metrics_pipeline.store import open_store
from tests.alerts.builders import NOW, RECEIVERS, make_card, make_verdict
from tests.store.databases import new_home

INSTANCE = "refund_rate_surge{region=华北}"
EPISODE = f"{INSTANCE}@2025-11-11T00:00"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path)))
    monkeypatch.setenv("COLUMNS", "200")
    store = open_store(load_settings())
    nights = [
        make_verdict("yellow", 0),
        make_verdict("red", 1),
        make_verdict("no_data", 2, reason="late"),
        make_verdict("unknown", 3),
        make_verdict("red", 4, rule_hash="r2"),
        make_verdict("ok", 5, rule_hash="r2"),
    ]
    for number, verdict in enumerate(nights):
        cards = {"refund_rate_surge": make_card()}
        apply_verdicts(store, [verdict], cards, receivers=RECEIVERS, now=NOW + timedelta(days=number))
    store.close()
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("key", [EPISODE, INSTANCE])
def test_show_tells_every_transition_with_its_reason_and_versions(home, key):
    code, out, _ = run("alerts", "show", key, "--json")
    assert code == 0
    story = json.loads(out)
    assert [(one["reason"], one["verdict_reason"]) for one in story["transitions"]] == [
        ("breach", "breach"),
        ("escalate", "breach"),
        ("no_data", "late"),
        ("error", "error"),
        ("breach", "breach"),
        ("recover", "ok"),
    ]
    back = story["transitions"][4]
    assert (back["previous_rule_hash"], back["rule_hash"], back["run_id"]) == ("r1", "r2", "run-1")
    assert back["run_url"] == "http://127.0.0.1:3000/runs/run-1"
    assert {"metric_version", "data_version", "run_id", "at", "value"} <= back.keys()
    assert [one["reason"] for one in story["messages"]] == ["first", "escalated", "all_resolved"]
    assert [one["order"] if "order" in one else one["episode"] for one in story["orders"]] == [EPISODE]
    assert story["instance"]["state"] == "ok"
    assert [one["close_reason"] for one in story["episodes"]] == ["recover"]


def test_a_rule_that_has_one_slice_only_is_shown_by_its_name(home):
    [by_rule, by_key] = [json.loads(run("alerts", "show", key, "--json")[1]) for key in ("refund_rate_surge", INSTANCE)]
    assert by_rule == by_key
    store = open_store(load_settings())
    other = make_verdict("ok", 5, member="华东")
    apply_verdicts(store, [other], {"refund_rate_surge": make_card()}, receivers=RECEIVERS, now=NOW)
    store.close()
    code, _, err = run("alerts", "show", "refund_rate_surge")
    assert (code, INSTANCE in err, "华东" in err) == (1, True, True)


def test_show_speaks_to_people(home):
    code, out, _ = run("alerts", "show", INSTANCE)
    assert code == 0
    assert "run http://127.0.0.1:3000/runs/run-1, 2025-" in out
    for word in ("r1 → r2", "late 数据迟到", "evaluation error 评估出错", "all_resolved", "Work orders"):
        assert word in out


def test_an_unknown_alert_is_told_with_its_neighbours(home):
    code, _, err = run("alerts", "show", "refund_rate_surge{region=华南}")
    assert code == 1
    assert INSTANCE in err
    assert "metrics alerts list" in run("alerts", "show", "nothing")[2]


def test_an_order_is_listed_assigned_and_closed(home, monkeypatch):
    [listed] = json.loads(run("orders", "list", "--json")[1])
    number = str(listed["id"])
    assert (listed["episode"], listed["is_overdue"]) == (EPISODE, True)
    code, out, _ = run("orders", "assign", number, "--to", "王芳", "--due", "2026-12-01T18:00", "--who", "li", "--json")
    assert (code, json.loads(out)["assignee"]) == (0, "王芳")
    code, _, err = run("orders", "close", number, "--reason", "whatever", "--note", "x")
    assert code == 1 and "fixed, false_alarm, expected, duplicate, data_problem" in err
    code, out, _ = run("orders", "close", number, "--reason", "false_alarm", "--note", "大促", "--who", "王芳")
    assert code == 0 and "false alarm 误报" in out and "大促" in out
    assert json.loads(run("orders", "list", "--json")[1]) == []
    assert len(json.loads(run("orders", "list", "--all", "--json")[1])) == 1
    shown = json.loads(run("orders", "show", EPISODE, "--json")[1])
    assert [one["what"] for one in shown["events"]] == ["opened", "assigned", "closed"]
    page = "http://127.0.0.1:3000/assets/operational/refund_rate?view=checks&checkDetail=refund_rate_surge"
    assert shown["links"]["check"] == page
    monkeypatch.setenv("COLUMNS", "80")
    assert f"\ncheck: {page}\n" in run("orders", "show", EPISODE)[1]
    said = json.loads(run("alerts", "feedback", "--json")[1])
    assert said["rules"] == [{"rule": "refund_rate_surge", "useful": 0, "not_useful": 1, "reasons": {"false_alarm": 1}}]


def test_feedback_is_kept_with_who_said_it(home):
    code, out, _ = run("alerts", "feedback", EPISODE, "--useful", "--reason", "in time", "--who", "li")
    assert code == 0 and "li finds" in out
    assert [one["who"] for one in json.loads(run("alerts", "show", EPISODE, "--json")[1])["feedback"]] == ["li"]
    assert "in time ×1" in run("alerts", "feedback")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("alerts", "feedback", EPISODE), 2, "--useful or --not-useful"),
        (("alerts", "feedback", "none", "--useful"), 1, "there is no episode"),
        (("orders", "show", "99"), 1, "there is no order '99'"),
        (("orders", "assign", "1", "--to", "x", "--due", "tomorrow"), 2, "is not a time"),
        (("orders", "close", "1", "--reason", "fixed", "--note", " "), 1, "needs a note"),
    ],
)
def test_what_cannot_be_done_is_said(home, arguments, code, said):
    got, _, err = run(*arguments)
    assert (got, said in err) == (code, True)


def test_the_other_verbs_answer(home):
    assert run("alerts", "list")[1].strip() == "Firing now: nothing."
    assert "escalate" in run("alerts", "history")[1]
    assert "all_resolved" in run("alerts", "messages")[1]
    assert run("orders", "--help")[0] == 0


@pytest.fixture
def advised(home):
    """The story of `home` with a second episode on another slice, and advice on it."""
    from types import SimpleNamespace

    from metrics_pipeline.advice.attach import attach
    from metrics_pipeline.advice.load import load_playbook

    settings = load_settings()
    store = open_store(settings)
    cards = {"refund_rate_surge": make_card()}
    apply_verdicts(store, [make_verdict("red", 9)], cards, receivers=RECEIVERS, now=NOW + timedelta(days=9))
    names = {"refund_rate": SimpleNamespace(name_zh="退款率", name_en="Refund rate", unit="ratio")}
    playbook = home / "playbook"
    playbook.mkdir()
    (playbook / "_playbook.yml").write_text(
        """entries:
  - id: call_region
    when: {alert: [refund_rate up], cause: {dimension: region}}
    action_zh: 联系 {region} 大区
    action_en: Call region {region}
    owner: after-sales
    effect_zh: 回落
    effect_en: It falls
""",
        "utf-8",
    )
    entries = load_playbook(playbook).entries.values()
    with store.writing("alerts") as connection:
        attach(connection, entries, names, cards, now=NOW + timedelta(days=9))
    store.close()
    return f"{INSTANCE}@2025-11-20T00:00"


def test_show_says_what_to_do_and_what_was_done_before(advised, monkeypatch):
    monkeypatch.setenv("METRICS_RULES_DIR", str(load_settings().home / "playbook"))
    code, out, err = run(
        "orders", "close", EPISODE, "--reason", "fixed", "--note", "换承运商", "--action", "call_region"
    )
    assert (code, err) == (0, "")
    code, out, _ = run("alerts", "show", advised)
    assert code == 0
    assert "1. 联系 华北 大区（after-sales）。依据：退款率（地区=华北）13.2%。" in out
    assert "2025-11-11 refund_rate_surge（地区=华北" in out
    assert "处理：call_region；已修复：换承运商" in out
    [shown] = json.loads(run("alerts", "show", advised, "--json")[1])["episodes"]
    assert [one["entry"] for one in shown["advice"]] == ["call_region"]
    assert shown["similar"][0]["episode"] == EPISODE
    assert shown["similar"][0]["distance"].keys() == {"metric", "place", "direction", "size", "onset"}
    _, out, _ = run("orders", "show", advised)
    assert "advised" in out
    assert "Call region 华北" in out


def test_what_was_done_is_kept_by_its_id_and_once(advised, monkeypatch):
    monkeypatch.setenv("METRICS_RULES_DIR", str(load_settings().home / "playbook"))
    code, _, err = run("alerts", "did", advised, "call_regions")
    assert (code, "did you mean 'call_region'" in err) == (2, True)
    assert run("alerts", "did", advised, "call_region", "--helped")[0] == 0
    code, out, _ = run("alerts", "did", advised, "call_region", "--not-helped", "--json")
    assert (code, json.loads(out)["helped"]) == (0, False)
    assert run("alerts", "did", advised, "other", "--note", "price test ended")[0] == 0
    code, _, err = run("alerts", "did", "nothing{all=all}@2025-01-01T00:00", "other")
    assert (code, "there is no episode" in err) == (1, True)
    code, _, err = run("orders", "close", advised, "--reason", "fixed", "--note", "x", "--helped")
    assert (code, "--action" in err) == (2, True)
    from metrics_pipeline.store.advice import actions_of

    store = open_store(load_settings())
    with store.reading() as connection:
        kept = {one.action: one.helped for one in actions_of(connection, [advised])}
    store.close()
    assert kept == {"call_region": False, "other": None}
