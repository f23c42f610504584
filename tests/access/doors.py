"""Every door of the product, as one table: what is asked through it, and what comes out of it as text.

A door that is not in the table fails `test_doors.py`, which compares it with the commands and the addresses there are.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import httpx
import pyarrow as pa
import typer.main
from fastapi import FastAPI
from typer.testing import CliRunner

from metrics_pipeline.alerts.notice import Notice
from metrics_pipeline.api.app import create_app
from metrics_pipeline.api.tokens import new_token
from metrics_pipeline.cli.app import app
from metrics_pipeline.delivery.guard import RESTRICTED, MessageGuard
from metrics_pipeline.delivery.messages import Wording, compose
from metrics_pipeline.followup.retrospective import week_of
from metrics_pipeline.orchestration.alert_assets import build_outbox_asset
from metrics_pipeline.orchestration.follow_up import build_proposals_asset, build_retrospective_asset
from metrics_pipeline.orchestration.forecast_assets import build_forecast_assets
from metrics_pipeline.orchestration.keys import WEEK_TAG
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.orchestration.rule_checks import build_evaluations_asset, build_rule_checks, check_groups
from metrics_pipeline.routing.load import routing_of
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.registry import open_source
from metrics_pipeline.store import Store, open_store
from metrics_pipeline.store.tables import outbox
from metrics_pipeline.store.tokens import add_token
from metrics_pipeline.warehouse.build import connect_build, ensure_raw_schema
from tests.access.closed_shop import ADDED, CONFIDENTIAL, LAST, NOW, REGIONS, Home

ASKER = "asker"
DAYS = ("--from", str(LAST), "--to", str(LAST))
NEW = ("made_up", "--label", "Made up", "--name-zh", "虚构指标")
EPISODE = f"@{LAST}T00:00"

COMMANDS: Mapping[str, list[tuple[str, ...]]] = {
    "value": [
        (), ("--json",), ("wombatpay",), ("quollshare", "--json"), ("numbatmean",), ("wombatpays",), (ADDED,),
        ("wombatpay", "--by", "region", "--json"), ("numbatsum", "--by", "channel", "--as-of", "2026-12-01T00:00"),
        ("wombatpay", "--by", "region", "--member", REGIONS[1]), ("wombatpay", "--by", "region", "--member", REGIONS[2]),
        ("wombatpay", "--by", "region", "--member", "漠河"), ("numbatsum", "--by", "city"), ("wombatpay", "--grain", "hour"),
    ],
    "library list": [(), ("--json",), ("--layer", "strategic"), ("--owner", "team-finance"), ("--owner", "nobody")],
    "library show": [("thylacine", "--json"), ("potoroo", "--json"), ("quollshare",), ("wombatpay", "--json"), (ADDED,), ("kowaro",)],
    "library lint": [(), ("--json",)],
    "library usage": [(), ("--json",), ("wombatshare", "--json"), (ADDED,)],
    "library lineage": [("thylacine", "--json"), ("potoroo", "--json"), ("wombatshare", "--mermaid"), ("quollshare", "--dot"), ("wombatpay",), (ADDED,)],
    "library history": [("thylacine",), ("numbatmean",), ("wombatpay", "--json"), (ADDED,)],
    "library diff": [("numbatsum", "1", "9"), ("wombatpay", "1", "1"), (ADDED, "1", "1")],
    "library asof": [
        ("numbatsum", "--at", "2026-12-01"), ("wombatpay", "--at", "2026-12-01", "--by", "region", "--json"), (ADDED, "--at", "2026-12-01"),
    ],
    "library proposals": [(), ("--json",), ("--metric", ADDED)],
    "library review": [("1",), ("2", "--json"), ("3",), ("9",)],
    "library approve": [("1",), ("2",), ("3",), ("9",)],
    "library reject": [("1", "--note", "no"), ("2", "--note", "no"), ("3", "--note", "no"), ("9", "--note", "no")],
    "library apply": [("1",), ("2",), ("3",), ("9",)],
    "library restate": [("wombatpay", "--from", str(LAST), "--why", "x"), (ADDED, "--from", str(LAST), "--why", "x")],
    "library compose": [
        (*NEW, "--expr", "1 - quollshare"), (*NEW, "--expr", "2 * wombatpay", "--json"),
        (*NEW, "--ratio", "quollback/wombatpay"), (*NEW, "--ratio", "wombatpay/wombatin"), (*NEW, "--ratio", "numbatsum/wombatpay"),
        (*NEW, "--cumulative", "bilbyout", "--days", "28"), (*NEW, "--average", "bilbyout", "--days", "28", "--json"),
        (*NEW, "--growth", "wombatpay"), (*NEW, "--expr", f"1 - {ADDED}"), (*NEW, "--expr", "wombatpays * 2"),
        ("numbatsum", *NEW[1:], "--expr", "2 * wombatpay"), (ADDED, *NEW[1:], "--expr", "2 * wombatpay"),
        ("made_up", "--label", "Numbatsum", "--name-zh", "虚构", "--expr", "2 * wombatpay"),
        (*NEW, "--conversion", "wombatin/wombatpay", "--entity", "order"), (*NEW, "--conversion", "nothing/wombatpay", "--entity", "order"),
    ],
    "library remove": [("wombatpay",), ("wombatin", "--json"), (ADDED,)],
    "library export": [(), ("--format", "osi"), ("thylacine",), ("thylacine", "--format", "osi"), ("potoroo",), ("wombatpay", "--format", "osi"), (ADDED,)],
    "library import": [("FOREIGN",), ("FOREIGN", "--json")],
    "library site": [("--out", "OUT", "--person", ASKER), ("--out", "OUT")],
    "rules lint": [(), ("--json",)],
    "rules schema": [()],
    "rules opinion": [(), ("--json",), ("--date", str(LAST), "--by", "region", "--json")],
    "rules propose": [("wombatpay",), ("numbatsum", "--json"), (ADDED,), ("wombatpays",)],
    "rules quality": [(), ("--json",), ("--since", "2026-01-01", "--json")],
    "playbook lint": [()],
    "playbook list": [(), ("--json",)],
    "playbook schema": [()],
    "rules show": [("wombatpay_sampled",), ("potoroo_both", "--json"), ("numbatsum_low",), (f"{ADDED}_low",), ("kowari_lo",)],
    "rules test": [(), ("--json",)],
    "rules replay": [(*DAYS, "--alerts"), (*DAYS, "--json", "--html", "OUT/replay.html"), (*DAYS, "--rule", f"{ADDED}_low")],
    "alerts": [(), ("--json",)],
    "alerts list": [(), ("--json",), ("--rule", "wombatpay_low_by_region"), ("--rule", f"{ADDED}_low"), ("--rule", "numbatsum_lo")],
    "alerts history": [(), ("--json",), ("--limit", "3")],
    "alerts messages": [(), ("--json",), ("--limit", "3")],
    "alerts show": [
        ("wombatpay_low",), ("numbatsum_low{all=all}", "--json"), (f"wombatpay_low_by_region{{region={REGIONS[1]}}}",),
        ("wombatpay_low_by_region", "--json"), (f"{ADDED}_low",), (f"numbatsum_low{{all=all}}{EPISODE}",), ("wombatin_part",),
    ],
    "alerts feedback": [(), ("--json",), (f"numbatsum_low{{all=all}}{EPISODE}", "--useful"), (f"{ADDED}_low{{all=all}}{EPISODE}", "--useful")],
    "alerts held": [(), ("--json",)],
    "alerts ack": [("numbatsum_low", "--by", ASKER), ("wombatpay_low_by_region", "--by", ASKER), (f"{ADDED}_low", "--by", ASKER)],
    "alerts snooze": [("numbatsum_low", "--by", ASKER, "--for", "1h"), ("wombatpay_low", "--by", ASKER, "--for", "1h")],
    "alerts drill": [("--rule", "numbatsum_low"), ("--rule", f"{ADDED}_low"), ("--end",)],
    "alerts rehearse": [(*DAYS, "--out", "OUT"), (*DAYS, "--json", "--rule", "wombatpay_low"), (*DAYS, "--rule", "kowari_lo")],
    "alerts missed": [
        (), ("--json",), ("wombatpay", "--on", str(LAST)), ("numbatsum", "--on", str(LAST), "--json"), (ADDED, "--on", str(LAST)),
        ("wombatpay", "--on", str(LAST), "--slice", f"region={REGIONS[1]}"), ("quollshare", "--on", str(LAST), "--slice", f"region={REGIONS[2]}"),
        ("--remove", "9"),
    ],
    "alerts did": [(f"numbatsum_low{{all=all}}{EPISODE}", "look"), (f"{ADDED}_low{{all=all}}{EPISODE}", "look")],
    "calendar add": [("nothing", "--on", "no day", "--name-zh", "无", "--name-en", "None")],
    "calendar infer": [(), ("--json",)],
    "calendar lint": [()],
    "calendar propose": [(), ("--accept", "nothing_1", "--event", "x")],
    "calendar show": [(), ("--from", "2026-10-01", "--to", "2026-11-30", "--json")],
    "forecast": [("wombatpay",), ("numbatsum", "--json"), ("wombatpay", "--by", "region", "--json"), ("wombatpays",), (ADDED,)],
    "diagnose": [
        ("wombatpay",), ("quollshare", "--json"), ("numbatmean", "--json"), (ADDED,), ("wombatpays",),
        ("wombatpay", "--slice", f"region={REGIONS[1]}", "--json"),
    ],
    "notes add": [()],
    "notes list": [(), ("--json",)],
    "stockout": [(), ("--json",)],
    "proposals": [()],
    "proposals list": [(), ("--json",)],
    "proposals make": [(), ("--json",)],
    "proposals show": [("1",), ("9",)],
    "proposals accept": [("1", "--why", "x"), ("9", "--why", "x")],
    "proposals reject": [("1", "--why", "x"), ("9", "--why", "x")],
    "retrospective": [(), ("--json",), ("--html", "OUT/week.html")],
    "orders list": [(), ("--json",), ("--all", "--limit", "2")],
    "orders show": [("1",), ("2", "--json"), ("7",), ("99",), (f"numbatsum_low{{all=all}}{EPISODE}",)],
    "orders assign": [("1", "--to", "me"), ("7", "--to", "me"), ("99", "--to", "me")],
    "orders close": [("2", "--reason", "fixed", "--note", "x"), ("99", "--reason", "fixed", "--note", "x")],
    "silences add": [('alertname="numbatsum_low"', "--for", "1h", "--by", ASKER, "--reason", "x", "--preview")],
    "silences list": [(), ("--all", "--json")],
    "silences expire": [("2", "--by", ASKER), ("99", "--by", ASKER)],
    "channels list": [(), ("--json",)],
    "channels test": [("file",), ("nothing",)],
    "routes show": [(), ("--json",)],
    "routes schema": [()],
    "routes test": [("--rule", "numbatsum_low"), ("--rule", f"{ADDED}_low"), ("--rule", "kowari_lo", "--json")],
    "access show": [(ASKER,), (ASKER, "--json"), ("boss",)],
    "access why": [(ASKER, "numbatsum"), (ASKER, ADDED), (ASKER, "wombatpay", f"region={REGIONS[1]}", "--json"), ("boss", "numbatsum")],
    "access people": [(), ("--json",)],
    "access people add": [("new",)],
    "access people remove": [("new",)],
    "access enable": [("--admin", ASKER)],
    "access disable": [("--reason", "x")],
    "access grant": [(ASKER, "--all", "--reason", "x"), (ASKER, "--metric", "numbatsun", "--reason", "x")],
    "access revoke": [("1", "--reason", "x")],
    "access database-roles": [()],
    "audit list": [(), ("--json",), ("--subject", "numbatsum")],
    "audit verify": [(), ("--json",)],
    "audit prune": [("--before", "2020-01-01")],
    "audit accept": [("--reason", "x")],
    "api openapi": [()],
    "api token create": [("boss",)],
    "api token list": [(), ("--json",), ("--person", "boss")],
    "api token revoke": [("aaaaaaaaaaaa",)],
    "api serve": [()],
    "library propose": [
        ("quollshare", "--set", "formula=quollback / wombatin", "--why", "x", "--json"),
        ("quollshare", "--set", f"formula={ADDED}", "--why", "x"), ("wombatpay", "--set", "formula=numbatsum / wombatin", "--why", "x"),
        ("wombatpay", "--set", "name_zh=袋\u9f60\u9ee0", "--why", "x"), (ADDED, "--set", "owner=x", "--why", "x"),
        ("quollback", "--set", "expr=is_first_refund and amount > 1", "--why", "x"), ("wombatpay", "--set", "expr=no_such", "--why", "x"),
        ("wombatpay", "--in-files", "--why", "x"), ("quollshare", "--in-files", "--why", "x"), (ADDED, "--in-files", "--why", "x"),
    ],
    "doctor": [(), ("--json",)],
    "compile": [("--check",), ()],
    "nightly": [()],
    "backfill": [()],
    "demo": [("--no-ui",)],
    "load": [("files", "OUT")],
    "ui": [()],
}  # fmt: skip
"""Command → what it is asked. `OUT` is a folder whose files are part of the answer."""

ADDRESSES: Mapping[str, list[str]] = {
    "/v1/health": ["/v1/health"],
    "/v1/metrics": ["/v1/metrics", "/v1/metrics?limit=2", "/v1/metrics?q=o", "/v1/metrics?layer=strategic", "/v1/metrics?line=finance&limit=0"],
    "/v1/metrics/{metric}": ["/v1/metrics/thylacine", "/v1/metrics/potoroo", "/v1/metrics/quollshare", "/v1/metrics/wombatpay", "/v1/metrics/numbatmean", f"/v1/metrics/{ADDED}"],
    "/v1/metrics/{metric}/versions": ["/v1/metrics/wombatshare/versions", "/v1/metrics/numbatsum/versions", f"/v1/metrics/{ADDED}/versions"],
    "/v1/metrics/{metric}/values": [
        "/v1/metrics/wombatpay/values", "/v1/metrics/quollshare/values?dimension=region", "/v1/metrics/numbatsum/values?dimension=channel&limit=3",
        "/v1/metrics/numbatmean/values?as_of=2026-12-01", f"/v1/metrics/wombatpay/values?dimension=region&member={REGIONS[1]}",
        f"/v1/metrics/wombatpay/values?dimension=region&member={REGIONS[2]}", "/v1/metrics/wombatpay/values?dimension=region|channel",
        f"/v1/metrics/{ADDED}/values", "/v1/metrics/numbatsum/values?dimension=nothing", "/v1/metrics/wombatpay/values?cursor=x",
    ],
}  # fmt: skip
"""Route → addresses that are asked for."""


PARTS = 8
"""Into how many parts the doors are dealt: a test asks some of them of many people."""


def part_of(command: str) -> int:
    """The part that a command is dealt to."""
    return list(COMMANDS).index(command) % PARTS


def answers(home: Home, part: int | None = None) -> Iterator[tuple[str, str]]:
    """(what was asked, all that was answered) through every door, or through those of one part, as `asker`."""
    chosen = [name for place, name in enumerate(COMMANDS) if part is None or place % PARTS == part]
    yield from command_answers(home, chosen)
    if part in (None, 0):
        yield from message_answers(home)
    if part in (None, 1):
        yield from api_answers(home)


def command_answers(home: Home, commands: Sequence[str]) -> Iterator[tuple[str, str]]:
    runner, program = CliRunner(), typer.main.get_command(app)  # made once: it is most of the work
    out = home.settings.home.parent / "out"
    foreign = home.settings.home.parent / "foreign.yml"
    environment = {**home.environment, "METRICS_USER": ASKER, "COLUMNS": "300"}
    for command in commands:
        for arguments in COMMANDS[command]:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            given = [one.replace("OUT", str(out)).replace("FOREIGN", str(foreign)) for one in arguments]
            with runner.isolation(env=environment) as (output, *_):
                error = _run(program, [*command.split(), *given])
                sys.stdout.flush()
                said = output.getvalue().decode()
            assert error is None or _is_told(error), (command, arguments, error)
            files = [path.read_text("utf-8", "replace") for path in sorted(out.rglob("*")) if path.is_file()]
            yield f"metrics {command} {' '.join(arguments)}", "\n".join((said, str(error or ""), *files))


def _run(program: Any, arguments: list[str]) -> Exception | None:
    """Run a command; returns what it did not tell itself."""
    try:
        program.main(args=arguments, prog_name="metrics")
    except SystemExit:
        return None
    except Exception as error:
        return error
    return None


def message_answers(home: Home) -> Iterator[tuple[str, str]]:
    """Every message that waits, as its receiver would get it."""
    store = open_store(home.settings)
    try:
        guard = MessageGuard(store, lambda: routing_of(home.settings))
        with store.reading() as connection:
            rows = list(connection.execute(outbox.select().order_by(outbox.c.key)))
        told = []
        for row in rows:
            notice = guard.shown_to(f"smtp:{ASKER}@shop", Notice.from_json(row.payload), now=datetime.now(UTC))
            message = compose(notice, Wording())
            # Who may not know of an alert is told that there is one (docs/access.md), and nothing else.
            text = (
                "restricted"
                if notice.rule.id.endswith(RESTRICTED.id)
                else "\n".join(
                    (message.title, message.text, message.html_page(), json.dumps(notice.to_json(), ensure_ascii=False))
                )
            )
            told.append(text)
        yield "messages", "\n".join(sorted(set(told) - {"restricted"}))
    finally:
        store.close()


CHECKS = ("quollshare_red", "wombatin_part", "wombatpay_sampled", "potoroo_both")
"""Rules on metrics that are not confidential whose checks are made, too; each draws a plot, so they are few."""


def ui_answers(home: Home) -> Iterator[tuple[str, str]]:
    """What the steps behind the published values write into Dagster, where all its users read the same: words and metadata."""
    last = home.settings.installation.model_copy(
        update={"forecasts": {"numbatsum": ("region",), "wombatpay": ("all",)}}
    )
    settings = home.settings.model_copy(update={"installation": last})
    project = Project(
        settings, open_source(settings), home.catalogue, load_rules(settings.rules_dir, home.catalogue), settings.home, lambda: NOW
    )  # fmt: skip
    with connect_build(settings.build_path) as con:
        ensure_raw_schema(con)
    assets = [
        build_evaluations_asset(project), *build_forecast_assets(project), build_outbox_asset(project),
        build_proposals_asset(project), build_retrospective_asset(settings),
    ]  # fmt: skip
    checks = [
        key
        for key, (rule, *_) in check_groups(project, project.ruleset.rules).items()
        if rule.metric in CONFIDENTIAL or rule.id in CHECKS
    ]
    selected = dg.AssetSelection.all() | dg.AssetSelection.checks(*checks)
    night = dg.define_asset_job("night", selected, executor_def=dg.in_process_executor)
    defined = dg.Definitions(assets=assets, asset_checks=build_rule_checks(project), jobs=[night])
    tags = {"dagster/partition": str(LAST), WEEK_TAG: week_of(LAST).name}
    with dg.DagsterInstance.ephemeral() as instance:
        run = defined.resolve_job_def("night").execute_in_process(instance=instance, tags=tags)
        for one in run.get_asset_check_evaluations():
            yield f"check {one.check_name}", _written(one.description, one.metadata)
        for event in run.get_asset_materialization_events():
            made = event.materialization
            yield f"asset {made.asset_key.to_user_string()}", _written(made.description, made.metadata)
        told = [one.user_message for one in instance.all_logs(run.run_id) if one.dagster_event is None]
        yield "log", "\n".join(told)


def _written(description: str | None, metadata: Mapping[str, dg.MetadataValue[Any]]) -> str:
    return "\n".join((description or "", *(f"{name}: {one.value}" for name, one in metadata.items())))


def api_answers(home: Home) -> list[tuple[str, str]]:
    settings = home.settings.model_copy(update={"api_per_minute": 60_000, "api_burst": 5_000})
    return asyncio.run(_asked(create_app(settings), _token(settings)))


async def _asked(api: FastAPI, token: str) -> list[tuple[str, str]]:
    found = []
    held = {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(api)
    async with (
        api.router.lifespan_context(api),
        httpx.AsyncClient(transport=transport, base_url="http://api") as client,
    ):
        for address in (one for of_route in ADDRESSES.values() for one in of_route):
            got = await client.get(address, headers=held)
            found.append((f"GET {address}", got.text + got.headers.get("link", "")))
        for address in ADDRESSES["/v1/metrics/{metric}/values"]:
            got = await client.get(address, headers={**held, "Accept": "application/vnd.apache.arrow.stream"})
            text = got.text
            if got.status_code == 200:
                with pa.ipc.open_stream(got.content) as reader:
                    text = f"{reader.schema.metadata} {reader.read_all().to_pylist()}"
            found.append((f"GET {address} (Arrow)", text))
    return found


def _token(settings: Settings) -> str:
    made = new_token(ASKER, "test", created_by="ops", now=datetime.now(UTC))
    store: Store = open_store(settings)
    with store.writing() as connection:
        add_token(connection, made.row)
    store.close()
    return made.text


def _is_told(error: BaseException) -> bool:
    """Whether `metrics` would tell it in one line."""
    from metrics_pipeline.cli.app import _is_known_input, _known_problems

    return isinstance(error, _known_problems()) or (isinstance(error, Exception) and _is_known_input(error))
