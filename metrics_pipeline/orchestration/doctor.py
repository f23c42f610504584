"""`metrics doctor`: what can be wrong with an installation, looked at one by one, each with its mend.

Here: read-only checks that never raise. Not here: mending.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Literal
from urllib.parse import urlsplit

from metrics_pipeline.settings import Settings

VERSIONS = {"dagster": "1.13", "dagster-dbt": "0.29", "dbt-core": "1.11", "dbt-duckdb": "1.11", "duckdb": "2."}
"""Package → beginning of the version this release is tested with."""
STALE = timedelta(hours=36)
SMTP_SECONDS = 5
UNPROPOSED_SHOWN = timedelta(days=30)
"""How long a definition that changed without a proposal is mentioned."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    status: Literal["ok", "note", "problem"]
    detail: str
    mend: str = ""


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order of the data. Never raises: what cannot be looked at is a finding."""
    found: list[Finding] = []
    for check in (
        _versions,
        _home,
        _source,
        _build,
        _store,
        _published,
        _rules,
        _calendar,
        _definitions,
        _access,
        _mail,
    ):
        try:
            found.extend(check(settings))
        except Exception as error:
            name = check.__name__.strip("_")
            found.append(Finding(name, "problem", f"{type(error).__name__}: {error}".splitlines()[0]))
    return found


def _versions(settings: Settings) -> Iterator[Finding]:
    wrong = []
    for package, wanted in VERSIONS.items():
        try:
            present = version(package)
        except PackageNotFoundError:
            present = "none"
        if not present.startswith(wanted):
            wrong.append(f"{package} {present} (tested with {wanted}*)")
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    if wrong:
        yield Finding("versions", "problem", ", ".join(wrong), "install requirements.lock (make setup)")
    else:
        yield Finding("versions", "ok", f"{python}, " + ", ".join(f"{name} {version(name)}" for name in VERSIONS))


def _home(settings: Settings) -> Iterator[Finding]:
    if not settings.home.exists():
        yield Finding("home", "problem", f"{settings.home} does not exist", "run `metrics demo` or `metrics load`")
    elif not settings.home.is_dir():
        yield Finding("home", "problem", f"{settings.home} is no folder", "choose another METRICS_HOME")
    elif not os.access(settings.home, os.W_OK):
        yield Finding("home", "problem", f"{settings.home} is not writable", "change its owner, or METRICS_HOME")
    else:
        yield Finding("home", "ok", str(settings.home))


def _source(settings: Settings) -> Iterator[Finding]:
    from metrics_pipeline.sources.contract import load_contract
    from metrics_pipeline.sources.registry import open_source
    from metrics_pipeline.sources.source import SourceError

    try:
        source = open_source(settings)
        spans = [span for table in load_contract().table_names for span in source.coverage(table)]
    except SourceError as error:
        yield Finding("source", "problem", str(error))
        return
    if not spans:
        yield Finding("source", "problem", f"{source.info.name} covers no day", "check `path` in installation.yml")
        return
    first = min(span.start for span in spans).replace(tzinfo=UTC).astimezone(settings.zone)
    last = max(span.until for span in spans).replace(tzinfo=UTC).astimezone(settings.zone)
    yield Finding("source", "ok", f"{source.info.name}, {first:%Y-%m-%d} to {last:%Y-%m-%d %H:%M} shop time")
    for reason, names in _by_reason({name: one.reason_en for name, one in source.info.absent.items()}):
        yield Finding("source", "note", f"no {names}: {reason}")


def _build(settings: Settings) -> Iterator[Finding]:
    from metrics_pipeline.warehouse.build import BuildError, BuildLocked, connect_build
    from metrics_pipeline.warehouse.extent import covered_until
    from metrics_pipeline.warehouse.load import oldest_touched_day

    try:
        with connect_build(settings.build_path, read_only=True, wait_seconds=1) as con:
            covered, touched = covered_until(con), oldest_touched_day(con)
    except BuildLocked:
        yield Finding("build file", "note", "a run has it open right now")
        return
    except BuildError as error:
        yield Finding("build file", "problem", str(error))
        return
    size = settings.build_path.stat().st_size / 1e6
    yield Finding("build file", "ok", f"{size:,.0f} MB, {len(covered)} raw tables loaded")
    if touched is not None:
        yield Finding(
            "build file", "note", f"rows changed since {touched} are not rebuilt yet", "run `metrics nightly`"
        )


def _store(settings: Settings) -> Iterator[Finding]:
    from metrics_pipeline.store import StoreError, open_store
    from metrics_pipeline.store.outbox import waiting_count

    try:
        store = open_store(settings)
    except StoreError as error:
        yield Finding("store", "problem", str(error))
        return
    try:
        with store.reading() as connection:
            due = waiting_count(connection, now=datetime.now(UTC) - timedelta(minutes=10))
        kind = "SQLite" if store.is_sqlite else store.engine.dialect.name
        yield Finding("store", "ok", f"{kind}, schema is up to date")
        if due:
            yield Finding(
                "store",
                "problem",
                f"{due} messages have waited for more than 10 minutes",
                "run `metrics ui`, whose daemon sends them",
            )
    finally:
        store.close()


def _published(settings: Settings) -> Iterator[Finding]:
    from metrics_pipeline.warehouse.read import NotPublished, Published

    try:
        published = Published.open(settings.published_dir)
    except NotPublished as error:
        yield Finding("published", "problem", str(error))
        return
    age = datetime.now(UTC).replace(tzinfo=None) - published.created_at
    hours = age.total_seconds() / 3600
    detail = f"version {published.version}, {hours:.1f} h old, days up to {published.manifest.window.until}"
    if age > STALE:
        yield Finding("published", "note", detail, "run `metrics nightly`, or switch on the schedule in the UI")
    else:
        yield Finding("published", "ok", detail)
    absent = {name: state.absent_en or "" for name, state in published.metrics.items() if state.is_absent}
    for reason, names in _by_reason(absent):
        yield Finding("metrics", "note", f"absent: {names}: {reason}")


def _by_reason(absent: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Reason → the names it holds for, so that a source with little is still a page of notes."""
    for reason in dict.fromkeys(absent.values()):
        yield reason, ", ".join(name for name, why in absent.items() if why == reason)


def _rules(settings: Settings) -> Iterator[Finding]:
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.rules.load import load_rules

    ruleset = load_rules(settings.rules_dir, Catalogue.read(settings.dbt_project_dir))
    if ruleset.problems:
        yield Finding(
            "rules", "problem", f"{len(ruleset.problems)} problems, e.g. {ruleset.problems[0]}", "metrics rules lint"
        )
    else:
        yield Finding("rules", "ok", f"{len(ruleset.rules)} rules in {settings.rules_dir}")


def _calendar(settings: Settings) -> Iterator[Finding]:
    from metrics_pipeline.detection.public_holidays import announced_until, country_of
    from metrics_pipeline.rules.seeds import seeds_of

    seeds = seeds_of(settings)
    year = datetime.now(UTC).astimezone(settings.zone).year
    if seeds.problems:
        text = f"{len(seeds.problems)} entries are left out, e.g. {seeds.problems[0]}"
        yield Finding("calendar", "problem", text, "metrics calendar lint")
    elif country_of(settings.installation.timezone) == "CN" and announced_until() < year:
        text = f"days off and worked weekends of {year} are not known, only the statutory days"
        yield Finding("calendar", "note", text, "upgrade chinesecalendar")
    else:
        yield Finding("calendar", "ok", f"{len({day.event for day in seeds.promotions})} events")


def _definitions(settings: Settings) -> Iterator[Finding]:
    from metrics_pipeline.library.versions import UNPROPOSED
    from metrics_pipeline.store import open_store
    from metrics_pipeline.store.metric_versions import changed_because

    store = open_store(settings)
    try:
        with store.reading() as connection:
            changed = changed_because(connection, UNPROPOSED, since=datetime.now(UTC) - UNPROPOSED_SHOWN)
    finally:
        store.close()
    if changed:
        yield Finding(
            "definitions",
            "note",
            f"{UNPROPOSED} in the last {UNPROPOSED_SHOWN.days} days: {', '.join(changed)}",
            "`metrics library history METRIC` says what; `metrics library propose` is the way that keeps the past",
        )


def _access(settings: Settings) -> Iterator[Finding]:
    from metrics_pipeline.access.services import NEEDS, may_work, why_not
    from metrics_pipeline.store import access, open_store

    store = open_store(settings)
    try:
        with store.reading() as connection:
            enabled = access.enabled(connection)
            idle = [service for service in NEEDS if not may_work(connection, service, now=datetime.now(UTC))]
    finally:
        store.close()
    if enabled is None:
        detail = "no policy is on: whoever uses this installation sees and does everything"
        yield Finding("access", "note", detail, "`metrics access enable --admin ID` turns it on (docs/access.md)")
    else:
        who, at = enabled
        yield Finding("access", "ok", f"policy on since {at.astimezone(settings.zone):%Y-%m-%d %H:%M}, by {who}")
        yield from (Finding("access", "problem", why_not(service)) for service in idle)


def _mail(settings: Settings) -> Iterator[Finding]:
    if settings.smtp_url is None:
        yield Finding("mail", "note", "off: messages go to files only", "set METRICS_SMTP_URL and METRICS_EMAIL_TO")
        return
    parts = urlsplit(settings.smtp_url.get_secret_value())
    host, port = parts.hostname or "", parts.port or (465 if parts.scheme == "smtps" else 25)
    try:
        with socket.create_connection((host, port), timeout=SMTP_SECONDS):
            pass
    except OSError as error:
        yield Finding("mail", "problem", f"{host}:{port} does not answer ({error})", "check METRICS_SMTP_URL")
        return
    yield Finding("mail", "ok", f"{host}:{port} answers, {len(settings.email_to)} receivers")
    if not settings.email_to:
        yield Finding("mail", "problem", "nobody gets mail", "set METRICS_EMAIL_TO to addresses separated by commas")
