"""Composite rules: verdicts over other rules' verdicts, still one statement for all their slices and periods.

A part of a condition has the rank of its tier (0 quiet, 1 yellow, 2 red) or none when it could not be judged. Of several
slices of a part that do not contradict the composite's own slice the highest rank counts: a composite by channel
sees the verdict of its channel, of the total, and of every pair with its channel. Ranks are put together as in Kleene's
three-valued logic: `all_of` is the lowest and is quiet as soon as one part is, `any_of` is the highest and breaches as
soon as one part does; what a missing part could still change stays open (NULL).

Composites of composites are judged in stages, so that every part was judged before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from metrics_pipeline.rules.model import Condition, Rule

Numbered = tuple[int, Rule]
"""A rule and its number in the run."""


def stages(rules: Sequence[Numbered]) -> list[list[Numbered]]:
    """The composite rules, those first whose parts are judged before; parts that are not in the run count as judged."""
    waiting = {rule.id: (number, rule) for number, rule in rules if rule.condition is not None}
    found: list[list[Numbered]] = []
    while waiting:
        ready = [one for one in waiting.values() if not waiting.keys() & set(one[1].references)]
        if not ready:  # a cycle, which lint refuses: none of them can be judged
            ready = list(waiting.values())
        found.append(ready)
        for _, rule in ready:
            del waiting[rule.id]
    return found


def with_parts(rules: Sequence[Rule], known: Sequence[Rule]) -> list[Rule]:
    """These rules and every rule their conditions need, in the order of `known`."""
    by_id = {rule.id: rule for rule in known}
    wanted: dict[str, None] = {}
    open_ids = [rule.id for rule in rules]
    while open_ids:
        name = open_ids.pop()
        if name not in wanted:
            wanted[name] = None
            open_ids += by_id[name].references if name in by_id else ()
    return [rule for rule in known if rule.id in wanted]


def cycle_of(rule: str, references: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The way from a rule back to itself, ids in order; () when there is none."""
    paths: list[tuple[str, ...]] = [(rule,)]
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        for name in references.get(path[-1], ()):
            if name == rule:
                return (*path, rule)
            if name not in seen:
                seen.add(name)
                paths.append((*path, name))
    return ()


def leaves(rules: Sequence[Numbered], run: Sequence[Numbered]) -> pa.Table:
    """One row per rule a condition names: whose verdicts it reads, and which parts of the two members must agree."""
    by_id = {rule.id: (number, rule) for number, rule in run}
    rows = []
    for number, rule in rules:
        assert rule.condition is not None
        for leaf_no, (name, is_negative) in enumerate(_leaves(rule.condition), start=1):
            of_number, other = by_id.get(name, (None, None))
            shared = [dimension for dimension in rule.by if other is not None and dimension in other.by]
            own = [rule.by.index(dimension) + 1 for dimension in shared]
            others = [other.by.index(dimension) + 1 for dimension in shared] if other is not None else []
            rows.append(
                {
                    "rule_no": number,
                    "leaf_no": leaf_no,
                    "of_rule_no": of_number,
                    "is_negative": is_negative,
                    **{f"own_{n}": own[n] if n < len(own) else None for n in range(2)},
                    **{f"other_{n}": others[n] if n < len(others) else None for n in range(2)},
                }
            )
    numbers = ("rule_no", "leaf_no", "of_rule_no", "own_0", "own_1", "other_0", "other_1")
    schema = pa.schema([*((name, pa.int32()) for name in numbers), ("is_negative", pa.bool_())])
    return pa.Table.from_pylist(rows, schema=schema)


def ctes(rules: Sequence[Numbered]) -> str:
    """SQL that yields `composed(rule_no, expected_no, rank, holds_rank)`; reads `leaves` and the verdicts in `found`."""
    return f"""
-- composite: the ranks of what each condition names, then the condition over them.
composite_slices AS MATERIALIZED (
    SELECT r.rule_no, e.expected_no, e.member, e.period_start
    FROM rules AS r
    JOIN asked AS a ON a.spec_no = r.spec_no
    JOIN expected AS e ON e.expected_no = a.expected_no
    WHERE r.override_no = 0 AND r.promotion_no = 0
),
leaf_slices AS (
    SELECT
        s.rule_no, s.expected_no, l.leaf_no, l.of_rule_no, l.is_negative, s.period_start,
        {_key("s.member", "l.own")} AS slice_key
    FROM composite_slices AS s
    JOIN leaves AS l ON l.rule_no = s.rule_no
),
leaf_verdicts AS MATERIALIZED (
    SELECT
        l.rule_no, l.leaf_no, f.period_start, {_key("f.member", "l.other")} AS slice_key,
        max({_RANK.format(word="f.tier", quiet="ok")}) AS rank,
        max(CASE WHEN f.tier IN ('ok', 'yellow', 'red') THEN {_RANK.format(word="f.holds", quiet="none")} END) AS holds
    FROM leaves AS l
    JOIN found AS f ON f.rule_no = l.of_rule_no
    GROUP BY ALL
),
composed AS MATERIALIZED (
    SELECT
        rule_no, expected_no,
        CASE rule_no {_cases(rules, "ranks")} END AS rank, CASE rule_no {_cases(rules, "holds")} END AS holds_rank
    FROM (
        SELECT
            s.rule_no, s.expected_no, list(v.rank ORDER BY s.leaf_no) AS ranks,
            list(CASE WHEN s.is_negative THEN v.rank ELSE v.holds END ORDER BY s.leaf_no) AS holds
        FROM leaf_slices AS s
        LEFT JOIN leaf_verdicts AS v
            ON v.rule_no = s.rule_no AND v.leaf_no = s.leaf_no AND v.period_start = s.period_start
            AND v.slice_key = s.slice_key
        GROUP BY s.rule_no, s.expected_no
    ) AS of_slice
)"""


_RANK = "CASE {word} WHEN '{quiet}' THEN 0 WHEN 'yellow' THEN 1 WHEN 'red' THEN 2 END"


def _key(member: str, parts: str) -> str:
    """The parts of a member that two slices have in common, as one text."""
    return " || '|' || ".join(f"coalesce(string_split({member}, '|')[{parts}_{n}], '')" for n in range(2))


def _leaves(condition: Condition, is_negative: bool = False) -> list[tuple[str, bool]]:
    """Rule ids in the order in which `_formula` reads them, and whether an odd number of `not` stands before each."""
    found: list[tuple[str, bool]] = []
    for parts, turned in ((condition.all_of, False), (condition.any_of, False), (condition.none_of, True)):
        for part in parts:
            negative = is_negative != turned
            found += [(part, negative)] if isinstance(part, str) else _leaves(part, negative)
    return found


def _cases(rules: Sequence[Numbered], column: str) -> str:
    cases = []
    for number, rule in rules:
        assert rule.condition is not None
        cases.append(f"WHEN {number:d} THEN {_formula(rule.condition, column, 1)[0]}")
    return " ".join(cases)


def _formula(condition: Condition, column: str, first: int) -> tuple[str, int]:
    """SQL of a condition over the list of its leaves' ranks, of which its own begin at `first`; and the next leaf."""
    at = first

    def parts_of(parts: Sequence[str | Condition]) -> list[str]:
        nonlocal at
        texts = []
        for part in parts:
            if isinstance(part, str):
                texts.append(f"{column}[{at:d}]")
                at += 1
            else:
                text, at = _formula(part, column, at)
                texts.append(text)
        return texts

    together = parts_of(condition.all_of)
    if one_of := parts_of(condition.any_of):
        together.append(_highest(one_of))
    if none_of := parts_of(condition.none_of):
        together.append(f"CASE WHEN {_highest(none_of)} > 0 THEN 0 WHEN {_highest(none_of)} = 0 THEN 2 END")
    return (_lowest(together) if len(together) > 1 else together[0]), at


def _lowest(parts: Sequence[str]) -> str:
    ranks = f"[{', '.join(parts)}]"
    return f"(CASE WHEN list_min({ranks}) = 0 OR list_count({ranks}) = {len(parts)} THEN list_min({ranks}) END)"


def _highest(parts: Sequence[str]) -> str:
    ranks = f"[{', '.join(parts)}]"
    return f"(CASE WHEN list_max({ranks}) > 0 OR list_count({ranks}) = {len(parts)} THEN list_max({ranks}) END)"
