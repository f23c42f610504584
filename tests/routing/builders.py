"""Routings from YAML text, with boring defaults."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.routing.channels import ChannelCard
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.routing.load import load_routing
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.settings import PROJECT_ROOT

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOON = datetime(2026, 11, 11, 4, 0, tzinfo=UTC)
"""A Wednesday, 12:00 in Shanghai."""
CHANNELS = {
    "file": ChannelCard("file", "file"),
    "smtp": ChannelCard("smtp", "smtp", ("everybody@shop.example",)),
    "sms": ChannelCard("sms", "sms_aliyun", ()),
    "ops": ChannelCard("ops", "dingtalk"),
    "sales_room": ChannelCard("sales_room", "feishu"),
}
PEOPLE = """
people:
  - {id: li, name_zh: 李雷, name_en: Li Lei, language: zh, contacts: {email: li@shop.example, phone: "13800000001", dingtalk: dt-li}}
  - {id: han, name_zh: 韩梅梅, name_en: Han Meimei, language: en, contacts: {email: "${HAN_EMAIL}", feishu: ou_han}}
  - {id: wang, contacts: {phone: "13800000003"}}
teams:
  - {id: sales, members: [li, han], channels: [sales_room]}
  - {id: after-sales, members: [wang]}
rotations:
  - {id: duty, start: 2026-11-02, period: 1w, handover: "09:00", timezone: Asia/Shanghai, members: [li, han]}
business_lines:
  - {id: trade, owner: sales, metrics: [refund_rate]}
"""


def write(folder: Path, routes: str, people: str | None = PEOPLE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_routes.yml").write_text(textwrap.dedent(routes).lstrip("\n"), "utf-8")
    if people is not None:
        (folder / "_people.yml").write_text(textwrap.dedent(people).lstrip("\n"), "utf-8")
    return folder


def make_routing(folder: Path, routes: str, people: str | None = PEOPLE, *, with_rules: bool = False) -> Routing:
    """A routing of these files; `with_rules`: linted against the rules of the project."""
    given = project_rules() if with_rules else {}
    return load_routing(
        write(folder, routes, people),
        channels=CHANNELS,
        local=SHANGHAI,
        variable={"HAN_EMAIL": "han@shop.example"}.get,
        **given,
    )


@lru_cache(maxsize=1)
def project_rules() -> dict:
    """The rules and metrics of the project, as `load_routing` takes them."""
    catalogue = Catalogue.read(PROJECT_ROOT / "dbt_project")
    return {"rules": load_rules(PROJECT_ROOT / "alert_rules", catalogue).rules, "metrics": catalogue.metrics}
