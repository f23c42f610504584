"""Messages as files: `<time>-<rule>-<key>.html` to look at and the same name `.json` for programs; `<time>-drill-<rule>-…`
for drills.

A repeated send replaces the same two files by the same content. The HTML stands alone, the plot is inside.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from metrics_pipeline.delivery.channels.channel import TemporaryFailure
from metrics_pipeline.delivery.messages import Message


@dataclass(frozen=True)
class FileChannel:
    """Leaves messages in a folder, which is made when needed."""

    folder: Path
    name: str = "file"
    limit: int | None = None

    def send(self, message: Message, address: str) -> str:
        """Write both files atomically and return the path of the HTML. `address` is not used."""
        notice = message.notice
        rule = re.sub(r"[^\w.-]+", "_", notice.rule.alert or notice.rule.id)
        if message.is_drill:
            rule = f"drill-{rule}"
        stem = f"{notice.created_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{rule}-{notice.key[:12]}"
        path = self.folder / f"{stem}.html"
        facts = {"title": message.title, "text": message.text, "message_id": message.id, "notice": notice.to_json()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _replace(self.folder / f"{stem}.json", json.dumps(facts, ensure_ascii=False, indent=1))
            _replace(path, message.html_page())
        except OSError as error:
            raise TemporaryFailure(f"{self.folder}: {error.strerror}; make the folder writable", refused=True) from None
        return str(path)


def _replace(path: Path, content: str) -> None:
    """One part per file, whoever writes it: what a killed sender left is written over by the next one."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
