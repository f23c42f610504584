"""Short, Markdown and card forms. Golden files: `METRICS_UPDATE_GOLDEN=1 pytest tests/delivery/test_forms.py` rewrites them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.alerts.notice import Counts
from metrics_pipeline.delivery import forms
from metrics_pipeline.delivery.channels.feishu import card_json
from metrics_pipeline.delivery.messages import compose
from tests.delivery.builders import make_end, make_notice, make_slice
from tests.delivery.test_messages import CASES, GOLDENS, golden

GOLDEN = Path(__file__).parent / "golden"
DIALECTS = {"dingtalk": (forms.DingTalkMarkdown(), 20_000), "wecom": (forms.WeComMarkdown(), 4096)}


def agreed(path: Path, text: str) -> None:
    if os.environ.get("METRICS_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_markdown_is_as_agreed(name, dialect):
    kind, limit = DIALECTS[dialect]
    agreed(GOLDEN / f"{name}.{dialect}.md", forms.markdown(golden(name), kind, limit, tail="@ann") + "\n")


@pytest.mark.parametrize("name", GOLDENS)
def test_cards_are_as_agreed(name):
    shown = card_json(forms.card(golden(name), forms.FeishuMarkdown(), 20_000), "img_v2_1")
    agreed(GOLDEN / f"{name}.feishu.json", json.dumps(shown, ensure_ascii=False, indent=1) + "\n")


@pytest.mark.parametrize("name", GOLDENS)
def test_lines_are_as_agreed(name):
    message = golden(name)
    lines = [forms.line(message, locale) for locale in ("zh", "en")]
    shown = {locale: forms.fields(message, locale) for locale in ("zh", "en")}
    agreed(GOLDEN / f"{name}.short.json", json.dumps([lines, shown], ensure_ascii=False, indent=1) + "\n")


@given(st.text(max_size=60), st.integers(0, 80))
def test_a_cut_keeps_to_its_bytes_and_to_whole_characters(text, limit):
    shown = forms.cut(text, limit)
    assert forms.size(shown) <= limit or shown == text == ""
    if forms.size(text) <= limit:
        assert shown == text
    elif shown:
        assert shown.endswith("…")
        assert text.startswith(shown[:-1])


@pytest.mark.parametrize("limit", [300, 600, 1000, 2048, 4096, 20_000])
@pytest.mark.parametrize(
    "dialect", [*(kind for kind, _ in DIALECTS.values()), forms.FeishuMarkdown(), forms.CommonMarkdown()]
)
def test_what_does_not_fit_goes_from_the_end(limit, dialect):
    message = compose(CASES["storm_zh"][0])
    text = forms.markdown(message, dialect, limit, tail="@ann")
    assert forms.size(text) <= limit
    assert text.endswith("@ann")
    assert "退款率" in text
    if limit >= 1000:
        assert "after-sales" in text
        assert message.link in text


def test_a_list_says_how_many_slices_it_leaves_out():
    slices = tuple(make_slice(f"sku-{n}", instance=f"r{{sku={n}}}") for n in range(20))
    message = compose(make_notice(slices=slices, counts=Counts(new=20, firing=20, red=20)))
    for limit, listed in ((20_000, 10), (2_000, 5), (1_100, 3)):
        text = forms.markdown(message, forms.WeComMarkdown(), limit)
        assert text.partition("RED")[0].count("sku-") == listed + 2, text  # and the title and the worst one
        assert f"另有 {20 - listed} 个切片未列出" in text


def test_every_field_of_a_text_message_has_a_value():
    for notice in (make_notice(), make_end()):
        assert set(forms.fields(compose(notice))) == set(forms.FIELDS)
        assert all(value for value in forms.fields(compose(notice)).values())
