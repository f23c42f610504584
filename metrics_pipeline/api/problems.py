"""Errors as RFC 9457 problem documents, in the language that was asked for; never a traceback."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

MEDIA_TYPE: Final = "application/problem+json"


class Kind(NamedTuple):
    """A kind of problem: its status and title."""

    status: int
    en: str
    zh: str


KINDS: Final[Mapping[str, Kind]] = {
    "not-authenticated": Kind(401, "A token is needed", "需要令牌"),
    "not-found": Kind(404, "There is no such thing", "不存在"),
    "method-not-allowed": Kind(405, "This is read-only", "只读接口"),
    "not-acceptable": Kind(406, "No such representation", "不支持的格式"),
    "version-gone": Kind(410, "The version of this cursor is gone", "游标所属版本已不再保留"),
    "bad-parameter": Kind(422, "A parameter cannot be used", "参数不可用"),
    "too-many-requests": Kind(429, "Too many requests", "请求过于频繁"),
    "internal": Kind(500, "Something failed here", "服务内部错误"),
    "not-ready": Kind(503, "Nothing can be read now", "暂时无法读取"),
}


class Complaint(NamedTuple):
    """What is wrong with one parameter."""

    parameter: str
    en: str
    zh: str


@dataclass
class Problem(Exception):
    """A problem that ends a request. `en` and `zh` say what was expected and what to do."""

    kind: str
    en: str
    zh: str
    headers: Mapping[str, str] = field(default_factory=dict)
    complaints: Sequence[Complaint] = ()

    def response(self, request: Request, default: str) -> Response:
        """The document, in the language of the request; `default`: the installation's."""
        language = language_of(request.headers.get("accept-language", ""), default)
        kind, is_zh = KINDS[self.kind], language == "zh"
        content: dict[str, Any] = {
            "type": f"urn:metrics:problem:{self.kind}",
            "title": kind.zh if is_zh else kind.en,
            "status": kind.status,
            "detail": self.zh if is_zh else self.en,
            "instance": request.url.path,
        }
        if self.complaints:
            content["errors"] = [
                {"parameter": one.parameter, "detail": one.zh if is_zh else one.en} for one in self.complaints
            ]
        fixed = {"Cache-Control": "no-store", "Content-Language": language, "Vary": "Accept-Language, Authorization"}
        return Response(
            json.dumps(content, ensure_ascii=False),
            status_code=kind.status,
            media_type=MEDIA_TYPE,
            headers={**fixed, **self.headers},
        )


def no_metric(metric: str) -> Problem:
    """The one answer for a metric that there is not and for one that may not be known."""
    return Problem(
        "not-found",
        f"there is no metric {metric!r} that you may see; GET /v1/metrics lists them",
        f"没有您可见的指标 {metric!r};可用 GET /v1/metrics 列出",
    )


def bad_parameter(parameter: str, en: str, zh: str) -> Problem:
    """A parameter that cannot be used, and why."""
    return unusable([Complaint(parameter, en, zh)])


def unusable(complaints: Sequence[Complaint]) -> Problem:
    """Parameters that cannot be used."""
    return Problem(
        "bad-parameter",
        "; ".join(f"{one.parameter}: {one.en}" for one in complaints),
        ";".join(f"{one.parameter}:{one.zh}" for one in complaints),
        complaints=complaints,
    )


def too_many(wait: float) -> Problem:
    """Too many requests; `wait` in seconds."""
    seconds = str(max(1, math.ceil(wait)))
    return Problem(
        "too-many-requests",
        f"ask again in {seconds} s; METRICS_API_PER_MINUTE and METRICS_API_BURST set the limits",
        f"请在 {seconds} 秒后重试;限额由 METRICS_API_PER_MINUTE 与 METRICS_API_BURST 设定",
        {"Retry-After": seconds},
    )


def from_validation(error: RequestValidationError) -> Problem:
    """What pydantic found wrong with the parameters."""
    return unusable([_complaint(one) for one in error.errors()])


def language_of(accept: str, default: str) -> str:
    """`zh` or `en`, whichever an Accept-Language header likes better."""
    liked: dict[str, float] = {}
    for part in accept.split(","):
        name, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality or 1)
        except ValueError:
            continue
        tag = name.strip().lower().split("-")[0]
        if tag in ("zh", "en"):
            liked[tag] = max(weight, liked.get(tag, 0.0))
    best = max(liked, key=lambda tag: liked[tag], default=default)
    return best if liked.get(best, 1.0) > 0 else default


_WORDS: Final = {
    "literal_error": ("must be {expected}", "应为 {expected}"),
    "int_parsing": ("must be a whole number", "应为整数"),
    "greater_than_equal": ("must be at least {ge}", "不得小于 {ge}"),
    "less_than_equal": ("must be at most {le}", "不得大于 {le}"),
    "extra_forbidden": ("there is no such parameter", "没有这个参数"),
    "string_pattern_mismatch": ("does not look like one (expected {pattern})", "格式不符(应匹配 {pattern})"),
    "string_too_long": ("is longer than {max_length} characters", "超过 {max_length} 个字符"),
}


def _complaint(error: Mapping[str, Any]) -> Complaint:
    name = str(error["loc"][-1]) if error["loc"] else "?"
    cause = (error.get("ctx") or {}).get("error")
    if isinstance(cause, BilingualError):
        return Complaint(name, cause.en, cause.zh)
    en, zh = _WORDS.get(error["type"], (error["msg"].replace("{", "{{").replace("}", "}}"), "不可用"))
    context = error.get("ctx") or {}
    return Complaint(name, en.format(**context), zh.format(**context))


class BilingualError(ValueError):
    """What a validator finds wrong, in both languages."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.en, self.zh = en, zh
