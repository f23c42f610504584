"""The shop's own calendar, `_calendar.yml` beside the rules: its promotions, moved events, what it takes no part in.

    country: BR                       # whose public holidays; none = of no country; left out = of the time zone
    without: [labour_day]             # shipped events and public holidays this shop takes no part in
    events:
      - event: member_day             # an id that is shipped, too, replaces that event in the years it is written for
        name_zh: 会员日
        name_en: Members' day
        falls_on: monthly 26          # one or a list; `occasions` says how dates are written
        phases: {before: -1, main: 0, after: [1, 2]}    # phase: day or [first, last] after the date; default main: 0
        affects: {category: [服饰]}   # left out = the whole shop
        years: 2024-2026              # left out = always
        because: 由 peers 推断，2026-04-02 经 li 确认

An entry that cannot be used is a problem with its line and is left out; it never stops the others, nor a night.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from metrics_pipeline.detection.occasions import LONGEST, Occasion, Stretch, dates_of, in_order, phase_of
from metrics_pipeline.detection.promotions import YEARS, Affects, CalendarError, PromotionDay
from metrics_pipeline.detection.public_holidays import require_country
from metrics_pipeline.nearest import nearest
from metrics_pipeline.yaml_values import MarkedYAMLError, YAMLError, plain, read_yaml

NAME: Final = "_calendar.yml"
OWN: Final = "own"
"""Market of the shop's own events."""
_KEYS = ("country", "without", "events")
_EVENT_KEYS = ("event", "name_zh", "name_en", "falls_on", "phases", "affects", "years", "because")
_NEEDED = ("event", "name_zh", "name_en", "falls_on")
_ID = re.compile(r"[a-z0-9][a-z0-9_]*")
_HEAD = """# The shop's own calendar: promotions, moved events, what it takes no part in (docs/calendar.md).
# `metrics calendar lint` finds what is wrong; `metrics calendar propose` finds promotions nobody entered.
"""


@dataclass(frozen=True, order=True)
class CalendarProblem:
    """One thing that is wrong with the file."""

    file: Path
    line: int
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}; {self.mend}"


@dataclass(frozen=True)
class OwnCalendar:
    """What a shop says of its calendar, and what of the file could not be read."""

    occasions: tuple[Occasion, ...] = ()
    without: frozenset[str] = frozenset()
    country: str | None = None
    """ISO code; `none`; None = that of the time zone."""
    problems: tuple[CalendarProblem, ...] = ()
    lines: Mapping[str, int] | None = None
    """Event → line of its first entry."""

    def days(self, years: Iterable[int] = YEARS) -> list[PromotionDay]:
        """The shop's own days."""
        chosen = tuple(years)
        return [day for one in self.occasions for day in one.days(chosen)]

    def applied(self, shipped: Iterable[PromotionDay], years: Iterable[int] = YEARS) -> tuple[PromotionDay, ...]:
        """The shipped days without what the shop takes no part in or has moved, and its own days, by date."""
        own = self.days(years)
        moved = {(day.event, _year(day)) for day in own}
        kept = [day for day in shipped if day.event not in self.without and (day.event, _year(day)) not in moved]
        return in_order([*own, *kept])


def load_own_calendar(folder: Path) -> OwnCalendar:
    """The calendar in a folder of rules; empty when there is none. Never raises for what is in the file."""
    path = folder / NAME
    return read_own_calendar(path, path.read_text("utf-8", errors="replace")) if path.exists() else OwnCalendar()


def read_own_calendar(path: Path, text: str) -> OwnCalendar:
    """The same of a text that is, or is to be, in that file."""
    try:
        content = read_yaml(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        what = " ".join(part for part in (error.context, error.problem) if part).splitlines()[0]
        problem = CalendarProblem(path, line, f"this is not valid YAML: {what}", "mend the YAML at this line")
        return OwnCalendar(problems=(problem,))
    except YAMLError as error:
        return OwnCalendar(problems=(CalendarProblem(path, 1, str(error).splitlines()[0], "write YAML in UTF-8"),))
    return _Reader(path).read({} if content is None else content)


def add_event(folder: Path, entry: Mapping[str, Any]) -> Path:
    """Write an event into the calendar of a folder of rules, keeping its comments; the file is replaced at once.

    `entry`: the keys of an event. Raises `CalendarError` naming what is wrong; then nothing was written.
    """
    from ruamel.yaml import YAML

    path = folder / NAME
    text = path.read_text("utf-8") if path.exists() else _HEAD
    before = read_own_calendar(path, text)
    if before.problems:
        raise CalendarError("; ".join(str(one) for one in before.problems[:3]))
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    given = {key: value for key, value in entry.items() if value not in (None, "", {}, [])}
    if document is None:
        lines = io.StringIO()
        yaml.dump({"events": [given]}, lines)
        written = text + lines.getvalue()
    else:
        if document.get("events") is None:
            document["events"] = []
        document["events"].append(given)
        stream = io.StringIO()
        yaml.dump(document, stream)
        written = stream.getvalue()
    after = read_own_calendar(path, written)
    if after.problems:
        raise CalendarError("; ".join(f"{one.message}; {one.mend}" for one in after.problems))
    _replace(path, written)
    return path


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _year(day: PromotionDay) -> int:
    return (day.date - timedelta(days=day.day_in_event)).year


class _Reader:
    """A document on its way into an `OwnCalendar`; problems are gathered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems: list[CalendarProblem] = []

    def read(self, content: Any) -> OwnCalendar:
        if not isinstance(content, dict):
            self._report(1, "this file is no mapping", f"begin with one of the keys {', '.join(_KEYS)}")
            return OwnCalendar(problems=tuple(self._problems))
        self._only(content, _KEYS)
        country = content.get("country")
        try:
            if country not in (None, "none"):
                require_country(str(country))
        except CalendarError as error:
            self._report(_line(content, "country"), "country: " + str(error).split("; ")[0], str(error).split("; ")[-1])
            country = None
        without = content.get("without") or []
        if not isinstance(without, list) or not all(isinstance(one, str) for one in without):
            self._report(_line(content, "without"), "without is no list of events", "write it as [labour_day]")
            without = []
        events: Any = content.get("events") or []
        if not isinstance(events, list):
            self._report(_line(content, "events"), "events is no list", "begin each with `- event: …`")
            events = []
        found: list[Occasion] = []
        lines: dict[str, int] = {}
        for number, entry in enumerate(events):
            line = int(events.lc.item(number)[0]) + 1
            occasion = self._event(entry, line)
            if occasion is not None:
                found.append(occasion)
                lines.setdefault(occasion.event, line)
        return OwnCalendar(tuple(found), frozenset(without), country, tuple(self._problems), lines)

    def _event(self, entry: Any, line: int) -> Occasion | None:
        before = len(self._problems)
        if not isinstance(entry, dict):
            self._report(line, "this event is no mapping", "begin it with `- event: member_day`")
            return None
        self._only(entry, _EVENT_KEYS)
        for key in _NEEDED:
            if key not in entry:
                self._report(line, f"{key} is missing", "add it")
        if len(self._problems) > before:
            return None
        event = str(entry["event"])
        if not _ID.fullmatch(event):
            self._report(_line(entry, "event"), f"event {event!r} is no id", "use small letters, digits and _")
        name_zh, name_en = (str(entry[key] or "").strip() for key in ("name_zh", "name_en"))
        if not name_zh or not name_en:
            self._report(line, "a name is empty", "write it in both languages")
        falls_on = self._falls_on(entry)
        stretches = self._phases(entry)
        affects = self._affects(entry)
        years = self._years(entry)
        if len(self._problems) > before:
            return None
        return Occasion(event, name_zh, name_en, OWN, falls_on, stretches, *years, affects, NAME)

    def _falls_on(self, entry: Any) -> tuple[str, ...]:
        given = entry["falls_on"]
        texts = tuple(str(one) for one in given) if isinstance(given, list) else (str(given),)
        for text in texts:
            try:
                dates_of(text)
            except CalendarError as error:
                self._report(_line(entry, "falls_on"), f"falls_on {error}", "correct it")
        return texts

    def _phases(self, entry: Any) -> tuple[Stretch, ...]:
        given = entry.get("phases", {"main": 0})
        line = _line(entry, "phases")
        if not isinstance(given, dict) or not given:
            self._report(line, "phases is no mapping", "write it as {before: -1, main: 0, after: [1, 2]}")
            return ()
        found = []
        for phase, days in given.items():
            try:
                phase_of(str(phase), "phases")
            except CalendarError as error:
                self._report(line, str(error), "correct it")
                continue
            first, last = (days, days) if isinstance(days, int) else _pair(days)
            if first is None or last is None or not -LONGEST <= first <= last <= LONGEST:
                self._report(
                    line, f"days of phase {phase} are {plain(days)!r}",
                    f"write one day or [first, last], in order, within {LONGEST} days of the date",
                )  # fmt: skip
                continue
            found.append(Stretch(first, last, str(phase)))
        return tuple(sorted(found, key=lambda one: one.first))

    def _affects(self, entry: Any) -> Affects:
        given = entry.get("affects") or {}
        line = _line(entry, "affects")
        if not isinstance(given, dict):
            self._report(line, "affects is no mapping", "write it as {category: [服饰]}")
            return ()
        found: list[tuple[str, tuple[str, ...]]] = []
        for dimension, members in given.items():
            names = tuple(str(one) for one in members) if isinstance(members, list) else (str(members),)
            if not names or not re.fullmatch(r"[a-z][a-z0-9_]*", str(dimension)):
                self._report(line, f"affects {dimension!r}: {plain(members)!r}", "write it as {category: [服饰]}")
                continue
            found.append((str(dimension), tuple(dict.fromkeys(names))))
        return tuple(sorted(found))

    def _years(self, entry: Any) -> tuple[int, int]:
        given = entry.get("years")
        if given is None:
            return YEARS[0], YEARS[-1]
        match = re.fullmatch(r"(\d{4})(?:-(\d{4}))?", str(given))
        if match is None or int(match[1]) > int(match[2] or match[1]):
            self._report(_line(entry, "years"), f"years {given!r} are none", "write 2026 or 2024-2026")
            return YEARS[0], YEARS[-1]
        return int(match[1]), int(match[2] or match[1])

    def _only(self, mapping: Any, known: Sequence[str]) -> None:
        for key in mapping:
            if key not in known:
                guess = nearest(str(key), known) or f"; the keys are {', '.join(known)}"
                self._report(_line(mapping, key), f"key {key!r} is not known{guess}", "rename or remove it")

    def _report(self, line: int, message: str, mend: str) -> None:
        self._problems.append(CalendarProblem(self._path, line, message, mend))


def _line(mapping: Any, key: str) -> int:
    try:
        return int(mapping.lc.key(key)[0]) + 1
    except KeyError:
        return int(mapping.lc.line) + 1


def _pair(days: Any) -> tuple[int | None, int | None]:
    if isinstance(days, list) and len(days) == 2 and all(isinstance(one, int) for one in days):
        return days[0], days[1]
    return None, None


def entry_of(
    event: str,
    name_zh: str,
    name_en: str,
    falls_on: Sequence[str],
    *,
    phases: Mapping[str, tuple[int, int]] | None = None,
    affects: Mapping[str, Sequence[str]] | None = None,
    years: str = "",
    because: str = "",
) -> dict[str, Any]:
    """An event as it is written in the file; `falls_on` as one text when it is one."""
    return {
        "event": event,
        "name_zh": name_zh,
        "name_en": name_en,
        "falls_on": falls_on[0] if len(falls_on) == 1 else list(falls_on),
        "phases": {phase: first if first == last else [first, last] for phase, (first, last) in (phases or {}).items()},
        "affects": {dimension: list(members) for dimension, members in (affects or {}).items()},
        "years": years,
        "because": because,
    }
