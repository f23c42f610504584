"""The site as people use it: opened from a disk in a real browser, with keys and mouse."""

from __future__ import annotations

import pytest
from browser import PROGRAM, Browser

from metrics_pipeline.site.folder import replace_folder
from metrics_pipeline.site.pages import site_files

pytestmark = [
    pytest.mark.xdist_group("site"),
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="there is no chromium on this machine"),
]
SHOWN = "[...document.querySelectorAll('[data-entry]:not([hidden])')].map(row => row.querySelector('code').textContent)"
TITLE = "document.querySelector('h1').innerText"


@pytest.fixture(scope="module")
def site(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("site") / "site"
    replace_folder(folder, site_files(content))
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_typing_finds_metrics_in_both_languages_and_enter_opens_the_first(browser, site, catalogue):
    browser.open(f"{site.as_uri()}/index.html")
    assert len(browser.value(SHOWN)) == len(catalogue.metrics)
    browser.type("/")
    assert browser.value("document.activeElement.name") == "q"
    browser.type("refund rate")
    assert browser.value(SHOWN)[0] == "refund_rate"
    assert browser.value("document.querySelector('[data-count]').textContent") == str(len(browser.value(SHOWN)))
    browser.open(f"{site.as_uri()}/index.html?q=退款率")
    assert browser.value(SHOWN)[0] == "refund_rate"
    browser.value("document.querySelector('[name=q]').focus()")
    browser.press("Enter", 13)
    browser.wait("location.pathname.endsWith('/metrics/refund_rate.html')")


def test_filters_narrow_together_and_can_be_cleared(browser, site, catalogue):
    browser.open(f"{site.as_uri()}/index.html?layer=strategic&sensitivity=confidential")
    assert browser.value(SHOWN) == ["profit_margin"]
    browser.value("document.querySelector('[name=q]').focus()")
    browser.type("zzz")
    assert browser.value(SHOWN) == []
    assert browser.value("document.querySelector('[data-none]').checkVisibility()") is True
    browser.click("[data-clear]")
    browser.wait(f"({SHOWN}).length === {len(catalogue.metrics)}")


def test_the_language_is_switched_and_stays_switched_on_the_next_page(browser, site):
    browser.open(f"{site.as_uri()}/index.html?lang=zh")
    assert browser.value(TITLE) == "指标目录"
    browser.click("[data-set-lang=en]")
    assert browser.value(TITLE) == "Metric catalogue"
    assert browser.value("document.documentElement.lang") == "en"
    assert browser.value("document.querySelector('[name=layer] option').textContent") == "all"
    browser.value("setTimeout(() => document.querySelector('a[href^=\"metrics/gmv\"]').click())")
    browser.wait("location.pathname.endsWith('/metrics/gmv.html')")
    assert browser.value(TITLE).startswith("GMV")
    visible = "[...document.querySelectorAll('h2')].map(one => one.innerText)"
    assert "Lineage" in browser.value(visible) and "血缘" not in browser.value(visible)


def test_a_page_is_no_wider_than_a_phone(browser, site):
    browser._ask("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    for page in ("index.html", "metrics/refund_rate.html", "metrics/gmv.html", "metrics/ad_clicks.html"):
        browser.open(f"{site.as_uri()}/{page}?lang=en")
        assert browser.value("document.documentElement.scrollWidth") <= 360, page
    browser._ask("Emulation.clearDeviceMetricsOverride")
