"""Proposals: made from answers, accepted by a person as a reviewed change of the rule file, or rejected.

A proposal is of one rule as it is now (`base`, its hash): it can be accepted while the rule is that one, and is superseded
when the rule changes or newer answers suggest another change of the same kind. Nothing is written but by `accept`: lint first, then the tests
beside the rule, then the row, the audit entry and, last within the transaction, the file. Each of them can be repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.detection.occasions import in_order
from metrics_pipeline.detection.own_calendar import NAME as CALENDAR_FILE
from metrics_pipeline.detection.own_calendar import add_event, load_own_calendar
from metrics_pipeline.detection.promotions import CalendarError
from metrics_pipeline.followup.answers import ANSWERED, read_answers, reported_misses
from metrics_pipeline.followup.edits import Edit, EditError, edit_rule, rule_of, trial, write
from metrics_pipeline.followup.impact import compare
from metrics_pipeline.followup.methods import LEAST_ANSWERS, Suggestion, suggestions
from metrics_pipeline.followup.misses import Candidate, as_answers, ask, catching, days_added, labels_of
from metrics_pipeline.followup.occasions import Occasion, expected_occasions, together
from metrics_pipeline.followup.verdicts import judged_alerts
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.proposals import Actor, standing
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.replay import Label
from metrics_pipeline.rules.seeds import Seeds
from metrics_pipeline.store import Store, audit
from metrics_pipeline.store import rule_proposals as rows
from metrics_pipeline.store.missed import MissedRow
from metrics_pipeline.store.rule_proposals import ProposalRow
from metrics_pipeline.warehouse.read import Published

if TYPE_CHECKING:
    import pandas as pd

DAYS: Final = 90
"""How far back answers count, and the days of the replay."""
PURPOSE: Final = "proposals"
CALENDAR: Final = "calendar"
"""Kind of a proposal that is no change of a rule but an entry of the shop's own calendar."""
Tests = Callable[[Path, Path], Sequence[str]]
"""(folder of rules, file in it) → what the tests beside this file say against it; () when they hold."""


class ProposalError(ValueError):
    """What cannot be done with a proposal; the message says why and what to do."""


@dataclass(frozen=True)
class Ground:
    """What rules stand on: their files, the library, the seeds, published values, the shop's clock."""

    rules_dir: Path
    catalogue: Catalogue
    seeds: Seeds
    published: Published
    zone: tzinfo
    labels: tuple[Label, ...] = ()
    """Known incidents, where there are any (a simulated shop)."""

    def last_day(self, metric: str, now: datetime | None = None) -> date:
        """The newest day for which a metric is complete, before `now` (aware)."""
        state = self.published.metrics.get(metric)
        until = None if state is None else state.complete_until
        reach = self.published.manifest.window.until if until is None else until.date()
        if now is not None:
            reach = min(reach, now.astimezone(self.zone).date())
        return reach - timedelta(days=1)

    def days_before(self, last: date, days: int) -> date:
        """The first of `days` days that end with `last`, not before anything is published."""
        months = [file.month for file in self.published.manifest.values]
        return max(last - timedelta(days=days - 1), min(months, default=last))


@dataclass(frozen=True)
class Made:
    """What a round of making proposals did."""

    fresh: tuple[int, ...]
    superseded: tuple[int, ...]
    looked_at: int
    """Rules with answers enough."""
    reported: int = 0
    """Incidents that people reported because nobody was told."""


def make(
    store: Store, ground: Ground, sight: Sight, actor: Actor, *, days: int = DAYS, least: int = LEAST_ANSWERS
) -> Made:
    """Make the proposals that the answers of the last `days` suggest; those that are there already stay."""
    rules = {rule.id: rule for rule in load_rules(ground.rules_dir, ground.catalogue, ground.seeds).rules}
    with store.reading() as connection:
        answers = read_answers(connection, sight, since=actor.now - timedelta(days=days), until=actor.now)
        known = rows.read(connection)
        reported = reported_misses(connection, sight, since=(actor.now - timedelta(days=days)).date())
    ground = replace(ground, labels=(*ground.labels, *labels_of(reported)))
    said = answers.loc[answers["outcome"].isin(ANSWERED), "rule"].value_counts()
    answers = as_answers(answers, rules.values(), reported)
    suggested = _suggested(ground, rules, answers, [name for name in rules if said.get(name, 0) >= least], least)
    for name, found in _catching(ground, rules, reported, actor, days).items():
        suggested.setdefault(name, []).extend(found)
    there = {row.key for row in known if row.state != "superseded"}
    wanted: dict[tuple[str, str], str] = {}
    fitting: list[tuple[Rule, Suggestion]] = []
    for name, found in suggested.items():
        for one in found:
            if _was_refused(known, rules[name], one, actor.now, days):
                continue
            wanted[name, one.kind] = _key(rules[name], one)
            if wanted[name, one.kind] not in there:
                fitting.append((rules[name], one))
    values = _rows(ground, rules, fitting, answers, actor, days)
    for occasion in expected_occasions(answers, ground.seeds.promotions):
        key = f"/{CALENDAR}/{occasion.event}/{(occasion.last - occasion.first).days}"
        wanted["", f"{CALENDAR}/{occasion.event}"] = key
        if key not in there:
            values.append({**_calendar_row(ground, rules, occasion, answers, actor, days), "key": key})
    fresh: list[int] = []
    superseded: list[int] = []
    with store.writing(PURPOSE) as connection:
        for row in rows.read(connection, states=["proposed"]):
            if row.key not in wanted.values() if row.kind == CALENDAR else _is_over(row, rules, wanted):
                rows.change(connection, row.id, expected="proposed", state="superseded", decided_at=actor.now)
                superseded.append(row.id)
        for row_values in values:
            number = rows.add(connection, row_values)
            if number is not None:
                fresh.append(number)
                _audit(
                    connection,
                    actor,
                    "rule.propose",
                    row_values["rule"] or CALENDAR,
                    proposal=number,
                    kind=row_values["kind"],
                )
    return Made(tuple(fresh), tuple(superseded), len(suggested), len(reported))


def _catching(
    ground: Ground,
    rules: Mapping[str, Rule],
    reported: Sequence[MissedRow],
    actor: Actor,
    days: int,
) -> dict[str, list[Suggestion]]:
    """Rule → the change that would have caught reported incidents, when it is worth what else it tells."""
    if not reported:
        return {}

    seeds = ground.seeds

    def tried(one: Candidate) -> int | None:
        rule, known = one.rule, [found.miss for found in one.caught]
        try:
            edit = edit_rule(ground.rules_dir, ground.catalogue, ground.seeds, rule.id, one.changes)
        except EditError:
            return None
        now = ask(ground.published, [edit.after], known, promotions=seeds.promotions, references=seeds.references)
        by_report = {found.miss.id: found for found in now}
        if not all(found.is_caught_by(by_report[found.miss.id]) for found in one.caught):
            return None
        last = ground.last_day(rule.metric, actor.now)
        return days_added(
            ground.published, rule, edit.after, reported, first=ground.days_before(last, days), last=last,
            promotions=seeds.promotions, references=seeds.references,
        )  # fmt: skip

    asked = ask(ground.published, rules.values(), reported, promotions=seeds.promotions, references=seeds.references)
    return catching(asked, tried)


def find(connection: Connection, number: int) -> ProposalRow:
    """A proposal. Raises `ProposalError` when there is none of this number."""
    row = rows.find(connection, number)
    if row is None:
        raise ProposalError(f"there is no proposal {number}; `metrics proposals list` shows them")
    return row


def edit_of(ground: Ground, row: ProposalRow) -> Edit:
    """The change of a proposal to the file as it is now. Raises `ProposalError` when the rule is not the one it was made for."""
    try:
        edit = edit_rule(ground.rules_dir, ground.catalogue, ground.seeds, row.rule, row.changes)
    except EditError as error:
        raise ProposalError(f"proposal {row.id} cannot be made to the rule files:\n{error}") from None
    if edit.before.rule_hash != row.base and not edit.is_written:
        raise ProposalError(
            f"{row.rule} has changed since proposal {row.id} was made; `metrics proposals make` looks at it again"
        )
    return edit


def accept(
    store: Store,
    ground: Ground,
    actor: Actor,
    number: int,
    *,
    why: str,
    owners: Collection[str],
    tests: Tests,
) -> Edit:
    """Make the change of a proposal to the rule file. `owners`: the people behind the rule's owner.

    Raises `ProposalError` when it was decided on, the rule or its file has changed, lint or a test of the file refuses the change, or
    `actor` is not of those who answer for the rule.
    """
    if not why.strip():
        raise ProposalError("say why it is accepted, for whoever reads the history of the rule later")
    with store.reading() as connection:
        row = find(connection, number)
    if row.state == "accepted" and row.after == rule_of_now(ground, row.rule).rule_hash:
        return edit_of(ground, row)
    _must_be_open(row)
    edit = edit_of(ground, row)
    allowed = standing(edit.before.owner, owners, proposer=row.who, actor=actor.name)
    if not allowed.is_allowed:
        with store.writing(PURPOSE) as connection:
            _audit(connection, actor, "rule.accept", row.rule, outcome="denied", proposal=number, reason=allowed.remark)
        raise ProposalError(f"proposal {number} cannot be accepted by {actor.name}: {allowed.remark}")
    with trial(ground.rules_dir, edit.path, edit.text) as folder:
        failed = tests(folder, folder / edit.path.relative_to(ground.rules_dir))
    if failed:
        raise ProposalError(
            f"proposal {number} is not accepted: tests of {edit.path.name} no longer hold with it. Change these tests if what they "
            f"say is not meant any more, or reject the proposal.\n" + "\n".join(failed)
        )
    with store.writing(PURPOSE) as connection:
        done = rows.change(
            connection, number, expected="proposed", state="accepted", decided_by=actor.name, decided_at=actor.now,
            note=why.strip(), after=edit.after.rule_hash,
        )  # fmt: skip
        if not done:
            raise ProposalError(f"somebody else decided on proposal {number} just now; look at it again")
        _audit(
            connection, actor, "rule.accept", row.rule, proposal=number, why=why.strip(), remark=allowed.remark,
            changes=row.changes, before=row.base, after=edit.after.rule_hash, file=edit.path.name,
        )  # fmt: skip
        try:
            if not edit.is_written:
                write(edit)
        except EditError as error:
            raise ProposalError(str(error)) from None
    return edit


def accept_entry(store: Store, rules_dir: Path, actor: Actor, number: int, *, why: str) -> Path:
    """Write the entry of a proposal into the shop's own calendar; returns the file. Raises `ProposalError`."""
    if not why.strip():
        raise ProposalError("say why it is accepted, for whoever reads the calendar later")
    with store.writing(PURPOSE) as connection:
        row = find(connection, number)
        entry, path = row.changes["event"], rules_dir / CALENDAR_FILE
        is_written = any(one.event == entry["event"] for one in load_own_calendar(rules_dir).occasions)
        if row.state == "accepted" and is_written:
            return path
        _must_be_open(row)
        rows.change(
            connection, number, expected="proposed", state="accepted", decided_by=actor.name, decided_at=actor.now,
            note=why.strip(),
        )  # fmt: skip
        _audit(connection, actor, "calendar.add", entry["event"], proposal=number, why=why.strip(), entry=entry)
        try:
            return path if is_written else add_event(rules_dir, entry)
        except (CalendarError, OSError) as error:
            raise ProposalError(f"the calendar cannot be written: {error}") from None


def reject(store: Store, actor: Actor, number: int, *, why: str) -> ProposalRow:
    """Reject a proposal; the same one is not made again. Raises `ProposalError`."""
    if not why.strip():
        raise ProposalError("say why it is rejected, for whoever meets the same answers again")
    with store.writing(PURPOSE) as connection:
        row = find(connection, number)
        if row.state == "rejected" and row.decided_by == actor.name:
            return row
        _must_be_open(row)
        rows.change(
            connection, number, expected="proposed", state="rejected", decided_by=actor.name, decided_at=actor.now,
            note=why.strip(),
        )  # fmt: skip
        _audit(connection, actor, "rule.reject", row.rule or CALENDAR, proposal=number, why=why.strip())
        return find(connection, number)


def rule_of_now(ground: Ground, rule: str) -> Rule:
    """A rule as the files say now. Raises `ProposalError`."""
    try:
        return rule_of(load_rules(ground.rules_dir, ground.catalogue, ground.seeds), rule)
    except EditError as error:
        raise ProposalError(str(error)) from None


def _must_be_open(row: ProposalRow) -> None:
    if row.state != "proposed":
        by = f" by {row.decided_by}" if row.decided_by else ""
        raise ProposalError(f"proposal {row.id} is {row.state}{by} already")


def _suggested(
    ground: Ground, rules: Mapping[str, Rule], answers: pd.DataFrame, names: Collection[str], least: int
) -> dict[str, list[Suggestion]]:
    """Rule → what its answers suggest. `names`: the rules with answers enough."""
    chosen = [rules[name] for name in names]
    judged = judged_alerts(
        ground.published, [rule for rule in chosen if rule.condition is None and rule.expr.family != "freshness"], answers,
        promotions=ground.seeds.promotions, references=ground.seeds.references,
    )  # fmt: skip
    return {name: suggestions(one, least=least) for name, one in sorted(judged.items())}


def _rows(  # noqa: PLR0917
    ground: Ground,
    rules: Mapping[str, Rule],
    found: Sequence[tuple[Rule, Suggestion]],
    answers: pd.DataFrame,
    actor: Actor,
    days: int,
) -> list[dict[str, Any]]:
    """The rows of suggestions, with what each would have changed; rules whose metrics reach equally far are replayed together."""
    evidence: list[dict[str, Any]] = []
    by_last: dict[date, list[tuple[int, Rule, Rule]]] = {}
    for n, (rule, one) in enumerate(found):
        evidence.append({"facts": dict(one.facts), "base_keys": _base_keys(rule, one.changes)})
        try:
            edit = edit_rule(ground.rules_dir, ground.catalogue, ground.seeds, rule.id, one.changes)
        except EditError as error:
            evidence[n]["problem"] = str(error)
        else:
            evidence[n]["diff"] = edit.diff()
            by_last.setdefault(ground.last_day(rule.metric, actor.now), []).append((n, rule, edit.after))
    for last, some in by_last.items():
        impacts = compare(
            ground.published, [(before, after) for _, before, after in some], answers,
            first=ground.days_before(last, days), last=last, rules=[*rules.values()],
            promotions=ground.seeds.promotions, references=ground.seeds.references, labels=ground.labels,
        )  # fmt: skip
        for (n, _, _), impact in zip(some, impacts, strict=True):
            evidence[n]["impact"] = impact.as_json()
    return [_row(rules, rule, one, answers, actor, known) for (rule, one), known in zip(found, evidence, strict=True)]


def _row(  # noqa: PLR0917
    rules: Mapping[str, Rule],
    rule: Rule,
    found: Suggestion,
    answers: pd.DataFrame,
    actor: Actor,
    evidence: dict[str, Any],
) -> dict[str, Any]:
    counts = answers.loc[answers["rule"] == rule.id, "outcome"].value_counts()
    evidence["answers"] = {str(name): int(count) for name, count in counts.items()}
    evidence["looked_at_by"] = sorted(one.id for one in rules.values() if rule.id in one.references)
    return {
        "key": _key(rule, found),
        "rule": rule.id,
        "metric": rule.metric,
        "kind": found.kind,
        "state": "proposed",
        "base": rule.rule_hash,
        "changes": json.loads(json.dumps(found.changes)),
        "evidence": evidence,
        "why": found.why,
        "why_zh": found.why_zh,
        "who": actor.name,
        "at": actor.now,
    }


def _calendar_row(  # noqa: PLR0917
    ground: Ground, rules: Mapping[str, Rule], found: Occasion, answers: pd.DataFrame, actor: Actor, days: int
) -> dict[str, Any]:
    concerned = [rules[name] for name in found.rules if name in rules]
    last = min(ground.last_day(rule.metric, actor.now) for rule in concerned) if concerned else found.last
    impacts = compare(
        ground.published, [(rule, rule) for rule in concerned], answers, first=ground.days_before(last, days), last=last,
        rules=[*rules.values()], promotions=ground.seeds.promotions,
        promotions_after=in_order([*ground.seeds.promotions, *found.days]), references=ground.seeds.references,
    )  # fmt: skip
    counts = answers.loc[answers["rule"].isin(found.rules), "outcome"].value_counts()
    named = ", ".join(found.rules)
    span = f"{found.first}" if found.first == found.last else f"{found.first} – {found.last}"
    evidence: dict[str, Any] = {"answers": {str(name): int(count) for name, count in counts.items()}}
    if impacts:
        evidence["impact"] = together(impacts).as_json()
    return {
        "rule": "",
        "metric": "",
        "kind": CALENDAR,
        "state": "proposed",
        "base": "",
        "changes": {"event": found.entry},
        "evidence": evidence,
        "why": f"On {span} {found.alerts} alerts of {named} were expected and none was true; the calendar does not know the day.",
        "why_zh": f"{span} 有 {found.alerts} 次报警（{named}）属预期之内，无一真实；日历中没有这一天。",
        "who": actor.name,
        "at": actor.now,
    }


def _base_keys(rule: Rule, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What the changed keys say now, so that the former rule can be judged later."""
    written = rule.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {name: written.get(name) for name in changes}


def _key(rule: Rule, found: Suggestion) -> str:
    said = hashlib.sha256(json.dumps(found.changes, sort_keys=True).encode()).hexdigest()[:12]
    return f"{rule.id}/{found.kind}/{rule.rule_hash}/{said}"


def _was_refused(known: Sequence[ProposalRow], rule: Rule, found: Suggestion, now: datetime, days: int) -> bool:
    """Whether somebody said no to a change of this kind to this very rule not long ago."""
    return any(
        row.state == "rejected"
        and (row.rule, row.kind, row.base) == (rule.id, found.kind, rule.rule_hash)
        and row.decided_at is not None
        and row.decided_at > now - timedelta(days=days)
        for row in known
    )


def _is_over(row: ProposalRow, rules: Mapping[str, Rule], wanted: Mapping[tuple[str, str], str]) -> bool:
    """Whether the rule is another one now, or newer answers suggest another change of this kind."""
    rule = rules.get(row.rule)
    if rule is None or rule.rule_hash != row.base:
        return True
    newer = wanted.get((row.rule, row.kind))
    return newer is not None and newer != row.key


def _audit(
    connection: Connection, actor: Actor, action: str, rule: str, *, outcome: audit.Outcome = "done", **details: Any
) -> None:
    audit.record(connection, actor.caller, action, rule, now=actor.now, outcome=outcome, details=details)
