"""The two syntaxes of Alertmanager: what its users write must mean here what it means there."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.routing.matchers import Matcher, MatcherError, match_all, parse_matchers, show_matchers


def parsed(text: str) -> list[tuple[str, str, str]]:
    return [(one.name, one.operator, one.value) for one in parse_matchers(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("severity=red", [("severity", "=", "red")]),
        ('severity = "red"', [("severity", "=", "red")]),
        ('  severity !=  "red" ', [("severity", "!=", "red")]),
        ('region="华北"', [("region", "=", "华北")]),
        ("region=华北", [("region", "=", "华北")]),
        ('地区="华北"', [("地区", "=", "华北")]),
        ('metric=~"orders_.*"', [("metric", "=~", "orders_.*")]),
        ("metric=~orders_.*", [("metric", "=~", "orders_.*")]),
        ('owner!~"growth|sales"', [("owner", "!~", "growth|sales")]),
        ('{severity="red", owner!="sales"}', [("severity", "=", "red"), ("owner", "!=", "sales")]),
        ('{severity="red", owner!="sales", }', [("severity", "=", "red"), ("owner", "!=", "sales")]),
        (
            '{\n  severity = "red",\n  owner =~ "growth|sales",\n}\n',
            [("severity", "=", "red"), ("owner", "=~", "growth|sales")],
        ),
        ('region = "华北,华东"', [("region", "=", "华北,华东")]),
        ('{note=~"Li said: \\"all!( red?)\\""}', [("note", "=~", 'Li said: "all!( red?)"')]),
        ("severity=red,owner!=sales", [("severity", "=", "red"), ("owner", "!=", "sales")]),
        ('summary="Hi, \\"all\\"!"', [("summary", "=", 'Hi, "all"!')]),
        ('sku=~"\\\\d+"', [("sku", "=~", "\\d+")]),
        ('"label with space"="x"', [("label with space", "=", "x")]),
        ('note="a\\nb"', [("note", "=", "a\nb")]),
        ('note="\\u534e"', [("note", "=", "\\u534e")]),  # the two disagree: the classic reading counts
        ('名="\\u534e"', [("名", "=", "华")]),
        ('label-with-dashes = "x"', [("label-with-dashes", "=", "x")]),
        ("{}", []),
        # only classic
        ("owner=", [("owner", "=", "")]),
        ("{owner=}", [("owner", "=", "")]),
        ("owner==x", [("owner", "=", "=x")]),
        ("sku=~a\\d", [("sku", "=~", "a\\d")]),
        ("tricky=~~~", [("tricky", "=~", "~~")]),
        ('note="C:\\temp"', [("note", "=", "C:\\temp")]),
        ("it=it's", [("it", "=", "it's")]),
    ],
)
def test_what_alertmanager_reads_is_read_the_same(text, expected):
    assert parsed(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "severity",
        "=red",
        'severity="red',
        'severity=red"',
        "severity=a b, =c",
        "{,}",
        '{severity="red", owner="sales"',
        'severity="red", owner="sales"}',
        "sku=~a{2}",  # unquoted, the classic reading would cut the brace off
        '{{severity="red", owner="sales",}}',
        '"a="b""',
        "severity>3",
    ],
)
def test_what_is_no_matcher_is_refused_with_an_example(text):
    with pytest.raises(MatcherError, match='severity="red"'):
        parse_matchers(text)


@pytest.mark.parametrize("pattern", ["invalid[", "(?=a)b", "(a)\\1", "[[:alpha:]]"])
def test_an_expression_that_cannot_be_read_everywhere_is_refused(pattern):
    with pytest.raises(MatcherError, match=r"regular expression"):
        Matcher("a", "=~", pattern)


def test_expressions_match_the_whole_value():
    assert Matcher("m", "=~", "orders|gmv").accepts("gmv")
    assert not Matcher("m", "=~", "orders|gmv").accepts("gmv_by_region")
    assert Matcher("m", "=~", ".*gmv.*").accepts("gmv_by_region")


def test_an_absent_label_is_the_empty_text():
    assert Matcher("region", "!=", "华北").matches({})
    assert Matcher("region", "=", "").matches({})
    assert Matcher("region", "=~", ".*").matches({})
    assert not Matcher("region", "=~", ".+").matches({})
    assert match_all(parse_matchers('a="1", b!="2"'), {"a": "1"})
    assert not match_all(parse_matchers('a="1", b!="2"'), {"a": "1", "b": "2"})


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda text: not any(sign.isspace() for sign in text)
)
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PLAIN = st.builds(Matcher, name=NAMES, operator=st.sampled_from(["=", "!="]), value=VALUES)


@given(PLAIN)
def test_a_matcher_that_is_shown_reads_back_as_itself(matcher):
    if "\r" in str(matcher):
        return
    assert parse_matchers(str(matcher)) == (matcher,)


@given(st.lists(PLAIN, min_size=1, max_size=4))
def test_matchers_in_braces_read_back_in_any_number(matchers):
    again = parse_matchers(show_matchers(matchers))
    assert sorted(map(str, again)) == sorted(map(str, matchers))


@given(VALUES, VALUES)
def test_a_condition_and_its_opposite_never_agree(value, other):
    assert Matcher("a", "=", value).accepts(other) != Matcher("a", "!=", value).accepts(other)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    with suppress(MatcherError):
        assert parse_matchers(text) == parse_matchers(text)
