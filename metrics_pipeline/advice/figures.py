"""Whether a text says only what its facts say: every number, date and name of it must be in them. Pure.

Numbers may be written differently: 12.3% for 0.123, 1,234 for 1234, 1.2万 for 12000, rounded to the digits that are shown,
三成 for 30 %, half, twice. A number stands for a fact when it is the fact rounded so; its sign is left to the words around.
Dates may be written as 2025-11-11, 11月11日, 11/11, Nov 11. Names are identifiers (SKU-7, refund_rate), capitalised words
inside a sentence, what stands in quotation marks, and every name of the installation that is given as `others`: a text that
tells a region which its facts do not tell is wrong, however real the region is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

LONGEST: Final = 1200
"""Characters of a text that is accepted."""
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = (
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
    "周一", "周二", "周三", "周四", "周五", "周六", "周日", "星期", "礼拜",
    "yesterday", "tomorrow", "昨天", "昨日", "明天", "明日", "前天", "last week", "last month", "上周", "上月", "去年", "last year",
)  # fmt: skip
_SCALES: Final = {"万": 1e4, "亿": 1e8, "千": 1e3, "百": 1e2, "k": 1e3, "m": 1e6, "bn": 1e9, "million": 1e6, "billion": 1e9,
                  "thousand": 1e3, "hundred": 1e2}  # fmt: skip
_DIGITS: Final = {
    "零": 0,
    "一": 1,
    "二": 2,
    "两": 2,
    "三": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
    "十": 10,
}
_WORDS: Final = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "dozen": 12, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70,
    "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000, "million": 1e6, "half": 0.5, "twice": 2, "double": 2,
    "doubled": 2, "triple": 3, "tripled": 3, "thrice": 3, "quarter": 0.25, "third": 1 / 3, "hundreds": 100,
    "thousands": 1000, "millions": 1e6, "halved": 0.5, "quadrupled": 4,
}  # fmt: skip
_NUMBER: Final = re.compile(
    r"(?<![\w.])[-+−±]?(?P<digits>\d{1,3}(?:[,，]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"\s*(?P<suffix>%|％|‰|个百分点|万|亿|千|百|bn\b|[kKmM]\b|million\b|billion\b|thousand\b|hundred\b|percent\b|per cent\b)?"
)
_DATE: Final = re.compile(
    r"(?P<y>\d{4})\s*[-/.年]\s*(?P<m>\d{1,2})\s*[-/.月]\s*(?P<d>\d{1,2})日?"
    r"|(?P<m2>\d{1,2})\s*月\s*(?P<d2>\d{1,2})\s*[日号]"
    r"|(?P<mon>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?\s+(?P<d3>\d{1,2})(?:st|nd|rd|th)?(?:,?\s+(?P<y3>\d{4}))?"
    r"|(?P<d4>\d{1,2})\s+(?P<mon4>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?(?:\s+(?P<y4>\d{4}))?"
    r"|(?<![\d/])(?P<m5>\d{1,2})/(?P<d5>\d{1,2})(?![\d/])",
    re.IGNORECASE,
)
_CLOCK: Final = re.compile(r"(?<!\d)\d{1,2}[:：]\d{2}(?!\d)")
_CHINESE: Final = re.compile(
    r"百分之(?P<of>[零一二两三四五六七八九十百\d.]+)|(?P<n>[一二两三四五六七八九十百]+)(?P<unit>成|倍|万|亿|百|千|天|日|次|周|小时|件|单|元|个月|个)|(?P<half>一半|过半|翻倍|翻番|翻了一番)"
)
_LATIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_.\-][A-Za-z0-9]+)*")
_CODE: Final = re.compile(r"(?=[A-Za-z0-9_\-]*\d)[A-Za-z][A-Za-z0-9_\-]*|\d+(?:-[A-Za-z0-9]+)+")
_QUOTED: Final = re.compile(r"[「『“\"]([^」』”\"]{1,80})[」』”\"]")
_FORBIDDEN: Final = re.compile(r"https?://|www\.|@\w|[\w.+-]+@[\w-]+\.|\[[^\]]*\]\(|<[a-zA-Z/!]|```", re.IGNORECASE)
_LIST_MARK: Final = re.compile(r"(?m)^\s*(?:\d{1,2}[.、)）]|[-*•])\s+")
_SENTENCE: Final = re.compile(r"[.!?:;。！？：；\n]\s*$|^$")


class Amount(NamedTuple):
    """A number as it is written: its value, and how far the written one may be from what it stands for."""

    value: float
    tolerance: float
    text: str


def why_not(text: str, facts: Iterable[str], *, others: Collection[str] = ()) -> str:
    """Why a text may not be told: what in it is not in the facts; '' when it may. `others`: names that are no facts."""
    known = "\n".join(facts)
    if not text.strip():
        return "it is empty"
    if len(text) > LONGEST:
        return f"it has {len(text)} characters, more than {LONGEST}"
    if (found := _FORBIDDEN.search(text)) is not None:
        return f"it has an address, a mention or a tag: {found[0]!r}"
    body = _LIST_MARK.sub("", text)
    return _wrong_date(body, known) or _wrong_name(body, known, others) or _wrong_number(body, known)


def amounts(text: str) -> list[Amount]:
    """The numbers in a text that are no dates, times or parts of names."""
    text = _CLOCK.sub(" ", _DATE.sub(" ", text))
    text = _CODE.sub(" ", text)
    found = []
    for one in _NUMBER.finditer(text):
        digits = re.sub(r"[,，]", "", one["digits"])
        decimals = len(digits.partition(".")[2])
        suffix = (one["suffix"] or "").strip().lower()
        scale = (
            0.01
            if suffix in ("%", "％", "个百分点", "percent", "per cent")
            else 0.001
            if suffix == "‰"
            else _SCALES.get(suffix, 1.0)
        )
        found.append(Amount(float(digits) * scale, 0.5 * 10.0**-decimals * scale, one[0].strip()))
    for one in _CHINESE.finditer(text):
        value = _chinese(one)
        if value is not None:
            found.append(Amount(value, value * 0.051 if one["unit"] in ("成", "倍") or one["half"] else 1e-9, one[0]))
    for word in _LATIN.findall(_NUMBER.sub(" ", text)):
        if (value := _WORDS.get(word.lower())) is not None:
            found.append(Amount(float(value), float(value) * 0.051, word))
    return found


def _wrong_number(text: str, known: str) -> str:
    values = {one.value for one in amounts(known)}
    for one in amounts(text):
        if not any(abs(one.value - value) <= one.tolerance * 1.001 + 1e-9 for value in values):
            return f"the number {one.text!r} is not in the facts"
    return ""


def _wrong_date(text: str, known: str) -> str:
    given = [_day(one) for one in _DATE.finditer(known)]
    days = {(month, day) for _, month, day in given}
    for one in _DATE.finditer(text):
        year, month, day = _day(one)
        if (month, day) not in days or (year and (year, month, day) not in given):
            return f"the date {one[0]!r} is not in the facts"
    clocks = set(_CLOCK.findall(known))
    for clock in _CLOCK.findall(text):
        if clock.replace("：", ":") not in clocks:
            return f"the time {clock!r} is not in the facts"
    low, low_known = text.lower(), known.lower()
    for word in _WEEKDAYS:
        if word in low and word not in low_known:
            return f"the time {word!r} is not in the facts"
    return ""


def _wrong_name(text: str, known: str, others: Collection[str]) -> str:
    low = known.lower()
    for quoted in _QUOTED.findall(text):
        if quoted.strip().lower() not in low:
            return f"the name {quoted!r} is not in the facts"
    undated = _DATE.sub(" ", text)
    for found in (*_CODE.finditer(undated), *_LATIN.finditer(undated)):
        word = found[0]
        is_name = any(one in "_-." or one.isdigit() for one in word) or (
            word[0].isupper() and not _SENTENCE.search(found.string[: found.start()].rstrip(" "))
        )
        if is_name and len(word) > 1 and word.lower() not in low:
            return f"the name {word!r} is not in the facts"
    ranked = sorted({one for one in others if len(one) > 1}, key=lambda one: (-len(one), one))
    bare, left = text.lower(), low
    for name in ranked:  # the longest first: 华东仓 in the facts is no 华东
        is_fact = _stands_in(name, left)
        if _stands_in(name, bare) and not is_fact:
            return f"the name {name!r} is not in the facts"
        bare, left = (one.replace(name.lower(), " ") for one in (bare, left))
    return ""


def _stands_in(name: str, low: str) -> bool:
    name = name.lower()
    if name.isascii():
        return re.search(rf"(?<![a-z0-9_]){re.escape(name)}(?![a-z0-9_])", low) is not None
    return name in low


def _day(found: re.Match[str]) -> tuple[int, int, int]:
    """(year or 0, month, day)"""
    parts = found.groupdict()
    month = parts["mon"] or parts["mon4"]
    return (
        int(parts["y"] or parts["y3"] or parts["y4"] or 0),
        _MONTHS.index(month.lower()) + 1 if month else int(parts["m"] or parts["m2"] or parts["m5"] or 0),
        int(parts["d"] or parts["d2"] or parts["d3"] or parts["d4"] or parts["d5"] or 0),
    )


def _chinese(found: re.Match[str]) -> float | None:
    if found["half"]:
        return 0.5 if "半" in found["half"] else 2.0
    if found["of"]:
        number = _numeral(found["of"])
        return None if number is None else number / 100
    number = _numeral(found["n"])
    if number is None or (number == 1 and found["unit"] not in ("成", "万", "亿", "百", "千")):
        return None  # 一个, 一次, 一天 count nothing
    unit = found["unit"]
    return number / 10 if unit == "成" else number * _SCALES.get(unit, 1.0)


def _numeral(text: str) -> float | None:
    """十二 → 12, 三百五十 → 350, 12.5 → 12.5."""
    try:
        return float(text)
    except ValueError:
        pass
    total, last = 0, 0
    for sign in text:
        if sign == "百":
            total, last = total + (last or 1) * 100, 0
        elif sign == "十":
            total, last = total + (last or 1) * 10, 0
        elif sign in _DIGITS:
            last = _DIGITS[sign]
        else:
            return None
    return float(total + last)
