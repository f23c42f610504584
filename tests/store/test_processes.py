"""Which process is gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from metrics_pipeline.store.processes import is_gone, process_name


def test_this_process_is_there() -> None:
    assert not is_gone(process_name())
    assert not is_gone(f"{socket.gethostname()}:{os.getpid()}")


def test_a_process_that_was_killed_is_gone_before_anybody_asks_for_its_end() -> None:
    code = "from metrics_pipeline.store.processes import process_name; print(process_name(), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    assert not is_gone(name)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(name)
    process.communicate()
    assert is_gone(name)


def test_a_later_process_of_the_same_number_is_another_one() -> None:
    assert is_gone(f"{socket.gethostname()}:{os.getpid()}:1")


def test_other_hosts_and_other_words_are_never_gone() -> None:
    for name in (f"elsewhere:{2**22 - 1}:5", "7f3a", "", "me", f"{socket.gethostname()}:x"):
        assert not is_gone(name)
