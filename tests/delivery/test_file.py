"""The file and console channels."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from metrics_pipeline.delivery.channels import TemporaryFailure, channels_from, receivers_from
from metrics_pipeline.delivery.channels.console import ConsoleChannel
from metrics_pipeline.delivery.channels.file import FileChannel
from metrics_pipeline.delivery.messages import compose
from metrics_pipeline.settings import Settings
from tests.delivery.builders import make_drill, make_end, make_notice


def test_a_message_becomes_a_page_and_its_facts(tmp_path):
    channel = FileChannel(tmp_path / "messages")
    message = compose(make_notice())
    path = channel.send(message, "")
    assert channel.send(message, "") == path
    names = sorted(file.name for file in channel.folder.iterdir())
    assert names == [f"20251112T024000Z-refund_rate_surge-0123456789ab.{kind}" for kind in ("html", "json")]
    assert "data:image/svg+xml;base64," in (channel.folder / names[0]).read_text("utf-8")
    facts = json.loads((channel.folder / names[1]).read_text("utf-8"))
    assert (facts["title"], facts["notice"]["counts"]["firing"]) == (message.title, 2)


def test_the_files_of_a_drill_are_named_as_one(tmp_path):
    path = FileChannel(tmp_path).send(compose(make_drill()), "")
    assert path.endswith("20251112T024000Z-drill-refund_rate_surge-0123456789ab.html")


def test_a_sender_killed_while_it_writes_leaves_nothing_behind_once_the_message_is_sent_again(tmp_path):
    if (child := os.fork()) == 0:
        Path.replace = lambda self, target: os._exit(9)  # killed between writing and renaming
        FileChannel(tmp_path).send(compose(make_notice()), "")
    os.waitpid(child, 0)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    FileChannel(tmp_path).send(compose(make_notice()), "")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".json"]


def test_a_folder_that_cannot_be_written_is_a_temporary_failure(tmp_path):
    (tmp_path / "messages").write_text("a file in the way")
    with pytest.raises(TemporaryFailure, match="make the folder writable"):
        FileChannel(tmp_path / "messages").send(compose(make_notice()), "")
    assert [path.name for path in tmp_path.iterdir()] == ["messages"]


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_console_fits_the_width_and_takes_brackets_as_text(width):
    out = io.StringIO()
    channel = ConsoleChannel(Console(file=out, width=width))
    assert channel.send(compose(make_notice()), "") == f"printed {width} columns wide"
    channel.send(compose(make_end()), "")
    assert "[红色报警]" in out.getvalue()
    assert "华东" in out.getvalue()


def test_channels_and_receivers_follow_the_settings(tmp_path):
    bare = Settings(home=tmp_path)
    assert list(channels_from(bare)) == ["file"]
    assert receivers_from(bare) == ("file",)
    mail = bare.model_copy(update={"smtp_url": _secret("smtp://127.0.0.1"), "email_to": ("a@shop", "b@shop")})
    assert list(channels_from(mail, console=True)) == ["file", "console", "smtp"]
    assert receivers_from(mail, console=True) == ("file", "console", "smtp:a@shop", "smtp:b@shop")


def _secret(url: str):
    from pydantic import SecretStr

    return SecretStr(url)
