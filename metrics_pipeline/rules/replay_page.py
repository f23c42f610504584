"""A replay as a page to look at: firings per week, episodes beside the labelled incidents, figures and every alert.

One file without anything to load; the plots are SVG.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from html import escape
from pathlib import Path

from metrics_pipeline.rules.replay import Episode, Label, Replay, compatible, slice_of
from metrics_pipeline.rules.report import number, score_row

ALERTS = 500
"""Alerts listed; the plots show all."""
_COLOURS = {"yellow": "#e0a100", "red": "#c5221f", "incident": "#c9ddf7", "harmless": "#e6e6e6"}
_WIDTH, _LEFT, _RIGHT = 1040, 250, 20
_LANE = 16


def replay_page(replay: Replay, labels: Sequence[Label] = ()) -> str:
    """The HTML of a replay; `labels` are drawn behind the episodes of the rules that look at their metrics."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape(), trim_blocks=True
    )
    last = replay.until.date() - timedelta(days=1)
    weeks = max(len(replay.weeks), 1)
    count = len(replay.episodes)
    return environment.get_template("replay.html").render(
        title=f"规则回放 Replay {replay.start:%Y-%m-%d} … {last}",
        summary_zh=f"{len(replay.rules)} 条规则，{weeks} 周，触发 {count} 次（每周 {count / weeks:.1f} 次），"
        f"有消息的规则中位数每天 {replay.median_messages_per_day:g} 条。",
        summary_en=f"{len(replay.rules)} rules over {weeks} weeks fired {count} times ({count / weeks:.1f} a week); "
        f"median {replay.median_messages_per_day:g} messages a day.",
        errors=[f"{name}: {error}" for name, error in replay.errors.items()],
        weekly_svg=weekly_svg(replay),
        timeline_svg=timeline_svg(replay, labels),
        scores=_scores(replay),
        missed=", ".join(label.id for label in replay.missed),
        unasked=", ".join(label.id for label in replay.unasked),
        rules=_rules(replay),
        alerts=_alerts(replay.episodes[:ALERTS]),
        hidden=max(count - ALERTS, 0),
    )


def weekly_svg(replay: Replay) -> str:
    """Bars: how often a week the rules fired, at which worst tier."""
    counts = [[0, 0] for _ in replay.weeks]
    mondays = [monday for monday, _ in replay.weeks]
    for episode in replay.episodes:
        monday = episode.fired_at.date() - timedelta(days=episode.fired_at.weekday())
        counts[mondays.index(monday)][episode.tier == "red"] += 1
    most = max((yellow + red for yellow, red in counts), default=0) or 1
    height, base, left = 180, 150, 50
    step = (_WIDTH - left - _RIGHT) / max(len(counts), 1)
    parts = [_text(left - 8, 24, str(most), "end"), _text(left - 8, base, "0", "end")]
    for n, (yellow, red) in enumerate(counts):
        x, bottom = left + n * step, float(base)
        for value, tier in ((red, "red"), (yellow, "yellow")):
            size = value / most * (base - 20)
            bottom -= size
            if value:
                title = f"{mondays[n]}: {value} {tier}"
                parts.append(_bar(x + step * 0.1, bottom, step * 0.8, size, _COLOURS[tier], title))
        if n % max(len(counts) // 12, 1) == 0:
            parts.append(_text(x + step / 2, base + 18, f"{mondays[n]:%m-%d}", "middle"))
    return _svg(height, parts)


def timeline_svg(replay: Replay, labels: Sequence[Label] = ()) -> str:
    """One lane per rule that fired: its episodes in time, behind them the incidents that show in its metric."""
    first, last = replay.start.date(), replay.until.date()
    days = max((last - first).days, 1)

    def x_of(day: date) -> float:
        share = min(max((day - first).days, 0), days) / days
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    lanes: dict[str, list[Episode]] = {}
    for episode in replay.episodes:
        lanes.setdefault(episode.rule, []).append(episode)
    parts = []
    for lane, rule in enumerate(sorted(lanes)):
        top = 24 + lane * _LANE
        metric = lanes[rule][0].metric
        slices = [slice_of(episode.dimension, episode.member) for episode in lanes[rule]]
        for label in labels:
            shows = metric in label.metrics and any(compatible(one, label.slice) for one in slices)
            if not (label.is_harmless or shows) or label.ends_on < first or label.starts_on >= last:
                continue
            left, right = x_of(label.starts_on), x_of(label.ends_on + timedelta(days=1))
            kind = "harmless" if label.is_harmless else "incident"
            title = f"{label.id} {label.starts_on} … {label.ends_on}"
            parts.append(_bar(left, top, max(right - left, 1.5), _LANE, _COLOURS[kind], title))
        parts.append(_text(_LEFT - 8, top + _LANE - 4, rule, "end"))
        for episode in lanes[rule]:
            left, right = x_of(episode.fired_at.date()), x_of(episode.last_breach.date() + timedelta(days=1))
            title = (
                f"{rule} {episode.member} {episode.tier} {episode.fired_at:%Y-%m-%d} … {episode.last_breach:%Y-%m-%d}"
            )
            parts.append(_bar(left, top + 4, max(right - left, 2), _LANE - 7, _COLOURS[episode.tier], title))
    bottom = 24 + len(lanes) * _LANE
    for n in range(0, days + 1, max(days // 8, 1)):
        day = first + timedelta(days=n)
        parts.append(f'<line x1="{x_of(day):.1f}" y1="20" x2="{x_of(day):.1f}" y2="{bottom}" stroke="#0001"/>')
        parts.append(_text(x_of(day), 14, f"{day:%m-%d}", "middle"))
    if not lanes:
        parts.append(_text(_LEFT, 40, "没有触发 · nothing fired", "start"))
    return _svg(max(bottom + 8, 60), parts)


def _scores(replay: Replay) -> str:
    head = (
        "按 by", "名称 name", "发现 found", "召回 recall", "告警 episodes", "准确 precision", "落在无害事件 on harmless",
        "延迟（天）delay, days",
    )  # fmt: skip

    rows = [score_row(score) for score in replay.scores if score.incidents or score.episodes]
    return _table(head, rows) if rows else ""


def _rules(replay: Replay) -> str:
    head = (
        "规则 rule", "判定 judged", "黄 yellow", "红 red", "无数据 no data", "告警 episodes", "每周 a week", "消息 messages",
    )  # fmt: skip

    ordered = sorted(replay.rules, key=lambda rule: (-rule.episodes, rule.rule))
    rows = [
        (
            rule.rule,
            *(str(value) for value in (rule.judged, rule.yellow, rule.red, rule.no_data, rule.episodes)),
            f"{rule.firings_per_week:.2f}",
            str(rule.messages),
        )
        for rule in ordered
    ]
    return _table(head, rows, texts=1)


def _alerts(episodes: Iterable[Episode]) -> str:
    head = ("触发 fired", "持续至 until", "级别 tier", "规则 rule", "切片 slice", "最差 worst", "预期 expected")
    rows = [
        (
            f"{one.fired_at:%Y-%m-%d %H:%M}".removesuffix(" 00:00"),
            f"{one.last_breach:%Y-%m-%d %H:%M}".removesuffix(" 00:00"),
            one.tier,
            one.rule,
            "" if one.member == "all" else one.member,
            number(one.worst_value),
            number(one.worst_baseline),
        )
        for one in episodes
    ]
    return _table(head, rows, texts=5)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 2) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        shown = []
        for n, cell in enumerate(cells):
            kind = "n" if n >= texts else cell if cell in ("red", "yellow") else ""
            shown.append(f"<{tag}{f' class={kind}' if kind else ''}>{escape(cell)}</{tag}>")
        return f"<tr>{''.join(shown)}</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(one, 'td') for one in rows)}</table>"


def _svg(height: float, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" '
        f'height="{height:.0f}" font-size="11" font-family="inherit">{"".join(parts)}</svg>'
    )


def _bar(x: float, y: float, width: float, height: float, /, colour: str, title: str) -> str:  # noqa: PLR0917
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#444">{escape(text)}</text>'


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
