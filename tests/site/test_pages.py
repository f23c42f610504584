"""What stands on the pages, and what does not."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import PurePosixPath

import pytest
from catalogue_site import SECRET, site_content

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.routing.people import BusinessLine, Directory, PeopleFile, Team
from metrics_pipeline.site.content import EPISODES, MEMBERS
from metrics_pipeline.site.pages import site_files
from metrics_pipeline.store.database import open_url
from metrics_pipeline.store.tables import alert_instances, episodes, metric_versions

pytestmark = pytest.mark.xdist_group("site")


class _Page(HTMLParser):
    """Links and ids of a page; refuses scripts in it and unclosed elements."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open in ([], ["html"]), self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found[name] or "" for name in ("href", "src") if name in found]
        self.ids += [found["id"] or ""] if "id" in found else []
        assert not any(name.startswith("on") or name == "style" for name in found)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            assert found.get("src")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.open)


@pytest.fixture(scope="module")
def files(content) -> dict[str, str]:
    return dict(site_files(content))


def test_every_metric_has_a_page_and_every_link_leads_somewhere(files, catalogue):
    assert {f"metrics/{name}.html" for name in catalogue.metrics} <= files.keys()
    for name, text in files.items():
        if not name.endswith(".html"):
            continue
        page = _Page(text)
        assert len(page.ids) == len(set(page.ids)), name
        for link in page.links:
            if link.startswith("#"):
                assert link[1:] in page.ids, (name, link)
                continue
            assert "//" not in link, "nothing is loaded from elsewhere"
            parts: list[str] = []
            for part in PurePosixPath(name).parent.joinpath(link).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            assert "/".join(parts) in files, (name, link)


def test_values_of_confidential_metrics_are_nowhere(files, catalogue):
    digits = re.compile(r"98[, ]?765|9876[.5]|98\.?8 ?k", re.IGNORECASE)
    assert not [name for name, text in files.items() if digits.search(text)]
    for name, metric in catalogue.metrics.items():
        assert ("its values, chart and alerts are not on this site" in files[f"metrics/{name}.html"]) == (
            metric.sensitivity == "confidential"
        )


def test_the_same_value_is_shown_of_a_metric_that_is_not_confidential(catalogue, shop):
    """So the test above would notice."""
    told = dict(site_files(site_content(catalogue, shop, withheld=())))
    assert f"{SECRET:,.0f} CNY" in told["metrics/gross_profit.html"]


def test_a_ratio_of_something_withheld_shows_no_parts(catalogue, shop):
    page = dict(site_files(site_content(catalogue, shop)))["metrics/refund_rate.html"]
    assert '<th class="n"><span class="zh" lang="zh">分子' in page
    assert '<td class="n">120</td>' in page
    page = dict(site_files(site_content(catalogue, shop, withheld={"orders_paid"})))["metrics/refund_rate.html"]
    assert "分子" not in page
    assert '<td class="n">120</td>' not in page


def test_a_metric_that_is_not_shown_is_named_nowhere(catalogue, shop):
    shown = set(catalogue.metrics) - {"refunded_orders", "refund_rate"}
    told = dict(site_files(site_content(catalogue, shop, shown=shown)))
    assert "metrics/refund_rate.html" not in told
    pages = {name: text for name, text in told.items() if name.endswith(".html")}
    assert not [name for name, text in pages.items() if re.search("refund_rate|refunded_orders|first refunded", text)]
    assert "uses metrics that are not on this site" in pages["metrics/order_health.html"]


def test_newest_values_versions_and_promotions_are_on_the_page(files):
    page = files["metrics/gmv.html"]
    assert "1,099 CNY" in page
    assert "2025-12-09" in page and "2025-11-26" in page and '<td class="d">2025-11-25' not in page
    assert "Double 11" in page and 'class="shade"' in page
    page = files["metrics/orders_paid.html"]
    assert re.search(r"new</code></td><td class=\"d\">2025-10-21 – 2025-12-09</td><td class=\"n\">50", page)
    assert re.search(r"old</code></td><td class=\"d\">2025-09-01 – 2025-10-20</td><td class=\"n\">50", page)


def test_the_largest_slices_of_the_newest_day_are_on_the_page(files, content):
    shown = [one.member for one in content.entries["gmv"].slices]
    assert shown == [f"channel {number:02}" for number in range(MEMBERS + 2, 2, -1)]
    assert 'channel 14</td><td class="n">114.00 CNY' in files["metrics/gmv.html"]


def test_owners_and_lines_have_the_names_people_know(catalogue, shop):
    directory = Directory.of(
        PeopleFile(
            teams=(Team(id="after-sales", name_zh="售后组", name_en="After-sales team"),),
            business_lines=(BusinessLine(id="service", name_zh="服务线"),),
        )
    )
    told = dict(site_files(site_content(catalogue, shop, directory=directory)))
    page = told["metrics/refund_rate.html"]
    assert "售后组" in page and "After-sales team" in page
    assert '服务线</span><span class="en" lang="en">service' in page
    assert 'data-zh="服务线 (' in told["index.html"]
    assert "After-sales team" in told["index.html"]


def test_an_absent_metric_says_why_in_both_languages(files):
    page = files["metrics/ad_clicks.html"]
    assert "source test has no ad_spend.clicks" in page and "数据源没有点击" in page


def test_rules_stand_with_their_tiers(files, catalogue):
    page = files["metrics/refund_rate.html"]
    assert "refund_rate_surge_by_region" in page
    assert "退款率" in page and 'class="tier red">&gt; ' in page


def test_texts_are_escaped(catalogue, shop):
    evil = '<script>alert(1)</script>"&'
    one = replace(catalogue.metrics["gmv"], name_en=evil, name_zh=evil, definition_en=evil, owner=evil)
    changed = Catalogue({**catalogue.metrics, "gmv": one}, catalogue.definitions)
    for name, text in site_files(site_content(changed, shop)):
        assert "<script>" not in text, name
        if name.endswith(".html"):
            _Page(text)


def test_the_same_content_makes_the_same_bytes(files, content):
    assert dict(site_files(content)) == files


def test_newest_episodes_and_what_fires_now_are_told_unless_the_metric_is_withheld(
    catalogue, shop, tmp_path, make_episode
):
    store = open_url(f"sqlite:///{tmp_path / 'store.db'}")
    try:
        with store.writing("test") as connection:
            for number in range(EPISODES + 3):
                instance, episode = make_episode("refund_rate_surge_by_region", f"R{number}", number)
                connection.execute(alert_instances.insert().values(**instance))
                connection.execute(episodes.insert().values(**episode))
        told = site_content(catalogue, shop, store=store)
        lines = told.entries["refund_rate"].episodes
        assert [line.member for line in lines] == [f"R{number}" for number in range(EPISODES + 2, 2, -1)]
        assert told.entries["refund_rate"].firing == {"red": EPISODES + 3}
        page = dict(site_files(told))["metrics/refund_rate.html"]
        assert "地区=R10" in page and "region=R10" in page and "42.0%" in page
        hidden = site_content(catalogue, shop, store=store, withheld={"refund_rate"})
        assert not hidden.entries["refund_rate"].episodes and not hidden.entries["refund_rate"].firing
    finally:
        store.close()


def test_recorded_changes_say_who_and_why_and_no_former_text(catalogue, shop, tmp_path):
    store = open_url(f"sqlite:///{tmp_path / 'store.db'}")
    row = {"metric": "gmv", "definition": {}, "digest": "d", "who": "li", "at": datetime(2025, 12, 1, 8, tzinfo=UTC)}
    try:
        with store.writing("test") as connection:
            for number, version, why, diff in (
                (1, "aaaa", "first seen", {}),
                (2, "bbbb", "gift cards are no sales", {"formula": ["former words", "new words"]}),
            ):
                values = {**row, "number": number, "version": version, "why": why, "diff": diff}
                connection.execute(metric_versions.insert().values(**values))
        page = dict(site_files(site_content(catalogue, shop, store=store)))["metrics/gmv.html"]
    finally:
        store.close()
    assert page.index("gift cards are no sales") < page.index("first seen")
    assert "首次记录" in page, "what nobody wrote is told in both languages"
    assert "bbbb" in page and "2025-12-01 08:00 UTC" in page and ">公式<" in page
    assert "former words" not in page


def test_without_anything_published_there_are_definitions(catalogue):
    told = dict(site_files(site_content(catalogue, None)))
    assert "No values are published yet" in told["metrics/gmv.html"]
    assert "No values have been published yet" in told["index.html"]
