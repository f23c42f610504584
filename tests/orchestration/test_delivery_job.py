"""Messages made as time passes: they show what first messages show, up to the mail that arrives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller
from pydantic import SecretStr

from metrics_pipeline.alerts import Notice, Verdict, apply_verdicts
from metrics_pipeline.alerts.drills import start_drill
from metrics_pipeline.alerts.silencing import add_silence, read_matchers
from metrics_pipeline.delivery.channels import channels_from
from metrics_pipeline.delivery.channels.redaction import keep_secret
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.orchestration.delivery_job import build_delivery_job, queue_due
from metrics_pipeline.orchestration.keys import DELIVERIES_CHECK, OUTBOX_KEY
from metrics_pipeline.orchestration.series import recent_series
from metrics_pipeline.routing.load import routing_of
from metrics_pipeline.settings import Installation, Settings
from metrics_pipeline.store import Store, open_store
from metrics_pipeline.store.outbox import revive
from metrics_pipeline.store.tables import outbox
from tests.alerts.builders import make_card, make_verdict
from tests.alerts.desk import START
from tests.delivery.test_smtp import Mailbox, free_port
from tests.rules.shop import Shop

ROUTES = """
route: {receiver: room, group_by: [alertname], group_wait: 0s, group_interval: 30m, repeat_interval: 4h}
receivers:
  - {name: room, channels: [smtp]}
  - {name: boss, channels: [file]}
escalation:
  - {after: 60m, receiver: boss}
digest: {every: 20m}
"""
DAYS = 60
FIRST = date(2025, 9, 13)
"""So that the last of the days is that of the verdicts, 2025-11-11."""


@dataclass
class Post:
    """An installation whose routes lead to a mailbox, with published values."""

    settings: Settings
    store: Store
    mailbox: Mailbox

    def tick(self, *verdicts: Verdict, now: datetime = START) -> None:
        cards = {"refund_rate_surge": make_card()}
        routing = routing_of(self.settings)

        def series(keys):
            return recent_series(self.settings, keys)

        apply_verdicts(self.store, verdicts, cards, receivers=routing, now=now, series=series)

    def due(self, **after: float) -> list[Notice]:
        """What the delivery job queues so long after the start."""
        keys = queue_due(self.settings, self.store, now=START + timedelta(**after))
        return [one for one in self.notices() if one.key in keys]

    def notices(self) -> list[Notice]:
        with self.store.reading() as connection:
            payloads = connection.execute(sa.select(outbox.c.payload).order_by(outbox.c.id)).scalars()
            return [Notice.from_json(payload) for payload in payloads]


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "_routes.yml").write_text(ROUTES, "utf-8")
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    settings = Settings(
        home=tmp_path / "home",
        rules_dir=rules,
        installation=Installation(timezone="Asia/Shanghai", first_day=FIRST),
        smtp_url=SecretStr(f"smtp://127.0.0.1:{controller.port}"),
        email_to=("ops@shop.example",),
    )
    shop = Shop()
    for member in ("华北", "华东"):
        shop.add("refund_rate", [0.03] * (DAYS - 1) + [0.132], dimension="region", member=member, first=FIRST)
    shop.publish(settings.published_dir)
    store = open_store(settings)
    yield Post(settings, store, mailbox)
    store.close()
    controller.stop()


def shows_the_plot_and_the_worst(notice: Notice) -> bool:
    series = notice.series
    assert series is not None
    assert (len(series.points), series.points[-1].value) == (57, 0.132)
    return bool(notice.slices) and notice.slices[0].value is not None


def test_a_reminder_and_an_escalation_show_the_plot_and_the_worst_slices(post: Post) -> None:
    post.tick(make_verdict("red"), make_verdict("yellow", member="华东"))
    [first] = post.notices()
    [escalated] = post.due(minutes=60)
    reminders = post.due(hours=4)
    assert [escalated.reason, *sorted({one.reason for one in reminders})] == ["unacknowledged", "repeat"]
    assert all(shows_the_plot_and_the_worst(one) for one in (first, escalated, *reminders))
    assert [one.member for one in reminders[0].slices] == ["华北", "华东"]


def test_news_that_waited_for_its_group_shows_them(post: Post) -> None:
    post.tick(make_verdict("yellow"))
    post.tick(make_verdict("yellow"), make_verdict("yellow", member="华东", v=2), now=START + timedelta(minutes=5))
    assert len(post.notices()) == 1
    [news] = post.due(minutes=30)
    assert (news.reason, news.slices[0].member) == ("new_alerts", "华东")
    assert shows_the_plot_and_the_worst(news)


def test_what_a_silence_held_back_shows_them(post: Post) -> None:
    times = {"starts_at": START, "expires_at": START + timedelta(hours=1), "now": START}
    add_silence(post.store, read_matchers(['alertname="refund_rate_surge"']), author="li", reason="x", **times)
    post.tick(make_verdict("red"))
    assert post.notices() == []
    [held] = post.due(hours=1, minutes=1)
    assert (held.reason, shows_the_plot_and_the_worst(held)) == ("first", True)


def test_a_digest_shows_them(post: Post) -> None:
    rules = post.settings.rules_dir / "_routes.yml"
    rules.write_text(ROUTES.replace("30m,", "0s,") + "limits: {per_channel: {count: 1, per: 1h}}\n", "utf-8")
    post.tick(make_verdict("yellow"))
    post.tick(make_verdict("yellow", member="华东", v=2), now=START + timedelta(minutes=1))
    [digest] = post.due(minutes=65)
    assert (digest.reason, digest.slices[0].member, shows_the_plot_and_the_worst(digest)) == ("digest", "华东", True)


def test_a_drill_shows_the_real_past_unmarked(post: Post) -> None:
    start_drill(
        post.store, make_card(), routing_of(post.settings), now=START, dimension="region", member="华北",
        series=lambda keys: recent_series(post.settings, keys),
    )  # fmt: skip
    [notice] = post.notices()
    assert notice.series is not None
    assert len(notice.series.points) > 50


def test_the_mail_of_a_reminder_has_the_plot_inline(post: Post) -> None:
    post.tick(make_verdict("red"))
    post.due(hours=4)
    deliver_due(post.store, channels_from(post.settings), now=START + timedelta(hours=4))
    first, reminder = post.mailbox.mails
    for mail in (first, reminder):
        [plot] = [part for part in mail.walk() if part.get_content_type() == "image/png"]
        assert f'src="cid:{plot["Content-ID"].strip("<>")}"' in mail.get_body(("html",)).get_content()
    assert "重复提醒" in reminder.get_body(("plain",)).get_content()


def test_without_published_values_messages_go_out_without_a_plot(post: Post) -> None:
    post.tick(make_verdict("red"))
    (post.settings.published_dir / "CURRENT").unlink()
    assert [one.series for one in post.due(hours=4)] == [None, None]


def test_nothing_is_due_before_its_time(post: Post) -> None:
    post.tick(make_verdict("red"))
    assert post.due(minutes=30) == []
    assert queue_due(post.settings, post.store, now=datetime(2025, 1, 1, tzinfo=UTC)) == ()


def deliver(post: Post, instance: dg.DagsterInstance) -> dg.DagsterRun:
    """The delivery job, run for real; returns its run as the instance knows it."""
    result = build_delivery_job(post.settings).execute_in_process(instance=instance)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    return run


def last_check(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    """The newest evaluation of the check of the outbox."""
    key = dg.AssetCheckKey(OUTBOX_KEY, DELIVERIES_CHECK)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.event is not None
    evaluation = record.event.dagster_event.asset_check_evaluation_data
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    return evaluation


def page(instance: dg.DagsterInstance) -> dict[str, object]:
    """What the page of the outbox shows of the newest observation."""
    record = instance.fetch_observations(OUTBOX_KEY, limit=1).records[0]
    assert record.asset_observation is not None
    return {name: value.value for name, value in record.asset_observation.metadata.items()}


def test_what_arrives_is_on_the_page_of_the_outbox_and_its_check_passes(post: Post) -> None:
    post.tick(make_verdict("red"), now=datetime.now(UTC))
    with dg.DagsterInstance.ephemeral() as instance:
        run = deliver(post, instance)
        shown = page(instance)
        check = last_check(instance)
    assert (run.tags["metrics/delivered"], run.tags["metrics/failed"], run.tags["metrics/dead"]) == ("1", "0", "0")
    assert shown["deliveries_by_channel"] == {"smtp": {"sent": 1, "waiting": 0, "retrying": 0, "dead": 0}}
    assert (shown["delivered"], shown["waiting"], shown["dead_letters"]) == (1, 0, 0)
    assert "| smtp:o***@shop.example | 1 | 0 | 0 | 0 | – |" in str(shown["deliveries_by_receiver"])
    assert (check.passed, check.metadata["delivered"].value) == (True, 1)


def test_what_is_tried_again_is_a_warning_with_the_channels_own_words(post: Post) -> None:
    keep_secret("token-of-the-server")
    post.mailbox.data = ["451 4.3.0 | greylisted, ask token-of-the-server"]
    post.tick(make_verdict("red"), now=datetime.now(UTC))
    with dg.DagsterInstance.ephemeral() as instance:
        run = deliver(post, instance)
        shown = page(instance)
        check = last_check(instance)
    assert (run.tags["metrics/delivered"], run.tags["metrics/failed"], run.tags["metrics/dead"]) == ("0", "1", "0")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "渠道 smtp" in (check.description or "") and "Channels smtp: 0 messages given up, 1 tried again" in (
        check.description or ""
    )
    table = str(shown["deliveries_by_receiver"])
    assert "451 4.3.0 ｜ greylisted, ask ***" in table
    assert "token-of-the-server" not in table
    assert "ops@shop" not in table


def test_a_dead_letter_is_an_error_and_the_check_passes_again_when_messages_arrive(post: Post) -> None:
    post.mailbox.rcpt = ["550 5.1.1 ops@shop.example does not exist"]
    post.tick(make_verdict("red"), now=datetime.now(UTC))
    with dg.DagsterInstance.ephemeral() as instance:
        run = deliver(post, instance)
        check = last_check(instance)
        assert (run.tags["metrics/failed"], run.tags["metrics/dead"]) == ("1", "1")
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
        table = str(page(instance)["deliveries_by_receiver"])
        assert "| smtp:o***@shop.example | 0 | 0 | 0 | 1 | o***@shop.example: 550 5.1.1 o***@shop.example does" in table
        logged = [entry.user_message for entry in instance.all_logs(run.run_id)]
        assert any("550 5.1.1" in line for line in logged)
        assert not any("ops@shop" in line for line in logged)
        with post.store.writing("outbox") as connection:
            assert revive(connection, post.notices()[0].key, now=datetime.now(UTC))
        deliver(post, instance)
        assert last_check(instance).passed
