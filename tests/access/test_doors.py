"""No door tells what the policy denies: every door, over generated grants, in an installation of invented names and numbers.

Two checks for each answer. Nothing denied is in it: no name, no number in any way of writing it, no slice. And it does not
depend on what is denied: where an installation differs only in what somebody must not know, they are told the same, so
counts, order, errors and differences tell nothing either.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from metrics_pipeline.access.model import Grant, Level, Selector
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.api.app import create_app
from metrics_pipeline.cli.app import app
from metrics_pipeline.store import access, open_store
from metrics_pipeline.store.audit import entries
from tests.access.closed_shop import ADDED, ADDED_SHARE, CHANNELS, CONFIDENTIAL, NOW, REGIONS, VARIANTS, Home, build
from tests.access.doors import ADDRESSES, ASKER, COMMANDS, PARTS, answers, command_answers, part_of, ui_answers

Given = list[tuple[list[str], list[Selector], dict[str, list[str]], str]]


@pytest.fixture(scope="module")
def homes(tmp_path_factory) -> dict[str, Home]:
    """The installation, and each of its variants, with nobody's grants."""
    # Folders of one length: tables wrap the same way.
    return {one: build(tmp_path_factory.mktemp(f"shop_{place}"), one) for place, one in enumerate(("", *VARIANTS))}


SOME_METRICS = (
    [Selector("all")],
    [Selector("metric", "wombatpay")],
    [Selector("metric", "wombatpay"), Selector("metric", "wombatin")],
    [Selector("metric", "quollshare")],
    [Selector("metric", "potoroo"), Selector("metric", "quollshare")],
    [Selector("metric", "numbatmean")],
    [Selector("metric", "bilbyout")],
    [Selector("line", "service")],
    [Selector("line", "trade")],
    [Selector("layer", "operational")],
    [Selector("sensitivity", "confidential")],
)
SOME_SLICES: tuple[dict[str, list[str]], ...] = (
    {}, {}, {"region": [REGIONS[0]]}, {"channel": [CHANNELS[0]]}, {"region": [REGIONS[0]], "channel": [CHANNELS[0]]},
)  # fmt: skip
SOME_ACTIONS = (
    ["read"], ["read"], ["read", "compose"], ["read", "export"], ["compose", "approve"], ["export"],
    ["read", "acknowledge", "silence"], ["read", "compose", "export", "approve", "acknowledge", "silence"],
)  # fmt: skip
SOME_LEVELS = ("hidden", "banded", "exact")
PARTS_OF_A_GRANT = (SOME_ACTIONS, SOME_METRICS, SOME_SLICES, SOME_LEVELS)
grants = st.lists(st.tuples(*map(st.sampled_from, PARTS_OF_A_GRANT)), max_size=3)

DIGITS = r"(?<![1-9a-f])0*([1-9]\d{3})(?=\d{3}|e\+06)"
"""The four digits by which a number of the installation is known."""

PEOPLE = int(os.environ.get("METRICS_LEAK_PEOPLE", "1"))
"""How many generated people go through each part of the doors in the slow test (docs/access.md)."""


@settings(
    max_examples=3, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(given=grants, part=st.integers(0, PARTS - 1), variant=st.sampled_from(VARIANTS))
@example(given=[(["read", "export"], [Selector("metric", "wombatpay")], {}, "hidden")], part=1, variant="metric")
@example(
    given=[(["read", "export"], [Selector("metric", "thylacine")], {}, "exact")],
    part=part_of("library list"),
    variant="metric",
)
@example(
    given=[(["read", "export"], [Selector("metric", "thylacine")], {}, "exact")],
    part=part_of("library site"),
    variant="metric",
)
@example(given=[(["read", "compose"], [Selector("all")], {"region": [REGIONS[0]]}, "banded")], part=0, variant="region")
@example(
    given=[(["read", "compose"], [Selector("all")], {}, "exact")], part=part_of("library propose"), variant="metric"
)
@example(
    given=[
        (["read"], [Selector("layer", "operational")], {"region": [REGIONS[0]]}, "hidden"),
        (["read"], [Selector("sensitivity", "confidential")], {}, "banded"),
    ],
    part=0,
    variant="numbers",
)
@example(
    given=[(["export"], [Selector("all")], {}, "hidden"), (["read"], [Selector("line", "trade")], {}, "banded")],
    part=part_of("library export"),
    variant="metric",
)
def test_no_door_tells_what_is_denied_nor_anything_that_depends_on_it(homes, given, part, variant):
    _ask(homes, given, part, [variant])


@pytest.mark.slow
def test_every_door_is_asked_by_somebody(homes):
    for part in range(PARTS):
        for person in range(PEOPLE):
            chance = random.Random(f"{part} {person}")
            _ask(
                homes,
                [tuple(map(chance.choice, PARTS_OF_A_GRANT)) for _ in range(chance.randint(1, 3))],
                part,
                VARIANTS,
            )


def _ask(homes: dict[str, Home], given: Given, part: int, variants: Sequence[str]) -> None:
    told = _told(homes[""], given, part)
    _assert_nothing_denied(homes[""], homes[""].viewer(ASKER, _grants(given)), told, given)
    for variant in variants:
        if _is_denied(homes[variant], variant, given):
            for (asked, before), (_, after) in zip(told, _told(homes[variant], given, part), strict=True):
                # An id that is taken is refused, whoever asks (docs/access.md).
                assert f"compose {ADDED}" in asked or _plain(before) == _plain(after), (
                    f"{asked} tells something about {variant!r} to who has {given}: {_difference(_plain(before), _plain(after))}"
                )


RUNS = ("ui", "api serve", "nightly", "backfill", "demo", "load")
"""Commands that would run and not answer."""


@pytest.mark.slow
def test_who_is_told_a_confidential_number_is_on_record(homes):
    """By every command that tells one: with the metric, or an act that lets values leave."""
    home = homes[""]
    _begin(home, [(["read", "compose", "export", "approve", "acknowledge", "silence"], [Selector("all")], {}, "exact")])
    numbers = {str(number): metric for (metric, *_), number in home.numbers.items() if metric in CONFIDENTIAL}
    found, seen = set(), 0
    for command in COMMANDS:
        for asked, answer in command_answers(home, [command]) if command not in RUNS else ():
            recorded = _acts(home, after=seen)
            seen = max([seen, *(one.sequence for one in recorded)])
            said = _digits(_without(answer.casefold(), asked.casefold()))
            told = {numbers[one[1]] for one in re.finditer(DIGITS, said) if one[1] in numbers}
            left = any(one.action in ("export", "library.export", "library.site") for one in recorded)
            read = {one.subject for one in recorded if one.action == "metric.read"}
            # A ratio is read with its parts.
            read |= {part for metric in read for part in home.catalogue.metrics[metric].inputs}
            assert left or told <= read, f"{asked} tells {told - read}, and nothing is on record"
            found |= {command} if told else set()
    assert found >= {
        "value",
        "alerts list",
        "alerts history",
        "alerts show",
        "rules replay",
        "diagnose",
    }


def _acts(home: Home, *, after: int) -> list[Any]:
    store = open_store(home.settings)
    with store.reading() as connection:
        rows = entries(connection, limit=1_000)
    store.close()
    return [one for one in rows if one.sequence > after]


def test_dagster_shows_nothing_confidential_and_no_order_that_tells_it(homes):
    given: Given = [(["read"], [Selector("all")], {}, "hidden")]
    told = {}
    for variant in ("", "numbers"):
        _begin(homes[variant], given)
        told[variant] = list(ui_answers(homes[variant]))
    asked = {name for name, _ in told[""]}
    assert {"check numbatsum_low_by_region", "asset alerts/outbox", "asset followup/retrospective"} <= asked
    assert any("plot: ![" in text for _, text in told[""])
    _assert_nothing_denied(homes[""], homes[""].viewer(ASKER, _grants(given)), told[""], given)
    for (name, before), (_, after) in zip(told[""], told["numbers"], strict=True):
        assert _plain(before) == _plain(after), f"{name}: {_difference(_plain(before), _plain(after))}"


def test_every_command_and_every_address_is_in_the_table():
    def commands(one: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
        for name, inner in getattr(one, "commands", {}).items():
            yield from commands(inner, (*path, name))
        if not hasattr(one, "commands") or (path and one.invoke_without_command):
            yield " ".join(path)

    assert set(commands(typer.main.get_command(app))) == set(COMMANDS), (
        "tests/access/doors.py lacks a door, or has one too many"
    )
    assert set(create_app(_some_settings()).openapi()["paths"]) == set(ADDRESSES)


# -- what is asked -------------------------------------------------------------------------------------------------


def _told(home: Home, given: Given, part: int) -> list[tuple[str, str]]:
    """All answers to somebody with these grants, through one part of the doors."""
    _begin(home, given)
    return list(answers(home, part))


def _begin(home: Home, given: Given) -> None:
    """The installation as it was built, with these grants."""
    kept = home.settings.home / "store.kept"
    path = home.settings.home / "store.db"
    if not kept.exists():
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        shutil.copy(path, kept)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    home.settings.audit_head_file.unlink(missing_ok=True)
    shutil.copy(kept, path)
    store = open_store(home.settings)
    with store.writing("access") as connection:
        for actions, selectors, slices, level in given:
            access.add_grant(connection, {
                "subject_kind": "person", "subject": ASKER, "actions": actions, "selectors": [list(one) for one in selectors],
                "slices": slices, "level": level, "starts_at": None, "expires_at": None, "granted_by": "ops",
                "granted_at": NOW, "reason": "test",
            })  # fmt: skip
    store.close()


def _grants(given: Given) -> list[Grant]:
    return [
        Grant(number, "person", ASKER, frozenset(actions), tuple(selectors), {name: frozenset(of) for name, of in slices.items()}, Level[level.upper()])
        for number, (actions, selectors, slices, level) in enumerate(given)
    ]  # fmt: skip


def _is_denied(home: Home, variant: str, given: Given) -> bool:
    """Whether everything in which a variant differs is denied to who has these grants (whatever the action)."""
    viewer = home.viewer(
        ASKER,
        [
            Grant(one.id, "person", ASKER, frozenset({"read"}), one.selectors, one.slices, one.level)
            for one in _grants(given)
        ],
    )
    match variant:
        case "metric":
            return not (viewer.reading.knows(ADDED) or viewer.reading.knows(ADDED_SHARE))
        case "numbers":
            return all(
                viewer.level(metric, *slice_) < Level.EXACT
                for metric, *slice_ in home.numbers
                if metric in CONFIDENTIAL
            )
        case _:
            return all(
                viewer.level(metric, *slice_) == Level.DENIED
                for metric, *slice_ in home.numbers
                if REGIONS[0] not in slice_[1]
            )


# -- what must not be in it ----------------------------------------------------------------------------------------


def _assert_nothing_denied(home: Home, viewer: Viewer, told: list[tuple[str, str]], given: Given) -> None:
    unknown = [name for name in home.catalogue.metrics if not viewer.reading.knows(name)]
    names = {text.casefold(): name for name in unknown for text in home.texts(name)}
    names |= {f"{name}_low": name for name in unknown} | {f"{name}_low_by_region": name for name in unknown}
    pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, names)) + r")(?!\w)") if names else None
    digits = {
        str(number): (metric, slice_)
        for (metric, *slice_), number in home.numbers.items()
        if viewer.level(metric, *slice_) < Level.EXACT
    }
    spoken = {one for _, _, slices, _ in given for of in slices.values() for one in of}
    by_member: dict[str, list[Level]] = defaultdict(list)
    for metric, dimension, member in home.numbers:
        for part in member.split("|") if dimension != "all" else ():
            by_member[part].append(viewer.level(metric, dimension, member))
    hidden = [member for member, levels in by_member.items() if max(levels) == Level.DENIED and member not in spoken]
    for asked, answer in told:
        # What one's own grants are on, one is told by one's own grants.
        own = str(given) if asked.startswith("metrics access show") else ""
        said = _without(answer.casefold(), f"{asked} {own}".casefold())
        if pattern is not None:
            found = pattern.search(said)
            assert found is None, f"{asked} names {found[0]} ({_around(said, found)}) to who has {given}"
        for member in hidden:
            assert member not in said, f"{asked} names {member} to who has {given}"
        for found in re.finditer(DIGITS, _digits(said)):
            assert found[1] not in digits, (
                f"{asked} tells {digits.get(found[1])} ({_around(_digits(said), found)}) to who has {given}"
            )


def _around(text: str, found: re.Match[str]) -> str:
    return text[max(0, found.start() - 80) : found.end() + 40].replace("\n", " ")


def _without(answer: str, asked: str) -> str:
    """The answer without the words that the question brought along."""
    words = [one for one in re.findall(r"[\w|]+", asked) if len(one) > 2]
    for one in sorted(words, key=len, reverse=True):
        answer = re.sub(rf"(?<!\w){re.escape(one)}(?!\w)", "·", answer)
    return answer


def _digits(text: str) -> str:
    """Numbers in one way of writing, without hashes, times and coordinates of drawings."""
    text = re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
    text = re.sub(r"\b[0-9a-f]{8,}\b|\d{4}-\d\d-\d\d[t ]?[\d:.]*|data:[^\"' ]*", " ", text)
    return re.sub(r"(?<=\d)[.,](?=\d)", "", text)


def _plain(text: str) -> str:
    """An answer without what differs from run to run: folders, versions of data, hashes, cursors, times of this minute."""
    text = re.sub(r"[^\s'\"]*/shop_[^/\s]*/", "…/", text)
    text = re.sub(r"\b\d{8}T\d{6}\w*-[0-9a-f]+\b|\b[0-9a-f]{8,}\b", "#", text)
    text = re.sub(rf"{datetime.now(UTC):%Y-%m}[-\d]*[T ]?[\d:.+]*", "now", text)
    text = re.sub(r"_seconds: [\d.]+", "seconds", text)
    text = re.sub(rf"\b{datetime.now(UTC):%m}-\d\d \d\d:\d\d\b", "now", text)
    text = re.sub(
        r"(?:\s|─)+",
        " ",
        re.sub(
            r"stale by [\d,]+ h|\"stale_hours\": [\d.#]+|(proposal|review) \d+|\"since\": [^,]*|all.yml:\d+|ROW:[0-9a-f]+",
            "*",
            text,
        ),
    )
    return re.sub(
        r"(cursor=|\"next\": ?\")[\w=-]+|\"\w*(?:seconds|_ms|_s)\": [-\d.e#]+|in [\d.]+ s\b|metrics_\w+", "*", text
    )


def _difference(before: str, after: str) -> str:
    place = next((at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), 0)
    return f"{before[max(0, place - 60) : place + 60]!r} … {after[max(0, place - 60) : place + 60]!r}"


def _some_settings() -> Any:
    from metrics_pipeline.settings import Settings

    return Settings(home=Path("nowhere"))
