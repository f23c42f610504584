"""A real browser without a package for it: Chromium's own protocol over two pipes (`--remote-debugging-pipe`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


class PageChangedError(AssertionError):
    """The page left while it was asked; the next one can be asked again."""


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, profile: Path) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        # The browser reads from descriptor 3 and writes to descriptor 4.
        def descriptors() -> None:
            high = [os.dup2(one, number) for number, one in enumerate((to_browser, from_browser), start=60)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [
                str(PROGRAM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe",
                f"--user-data-dir={profile}", "about:blank",
            ],
            preexec_fn=descriptors,  # noqa: PLW1509 - nothing else gives a child descriptors 3 and 4
            close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._rest = 0, b""
        target = next(one for one in self._ask("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session: str | None = None
        self._session = self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        os.close(self._write)
        os.close(self._read)

    def open(self, url: str) -> None:
        """Go to a page and wait until its scripts have run."""
        self._ask("Page.navigate", url=url)
        self.wait(
            f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url.split('?', maxsplit=1)[0])})"
        )

    def wait(self, condition: str) -> None:
        """Wait until a page is complete and a JavaScript expression is true of it, also over a change of pages."""
        until = time.monotonic() + 10
        while not self._is(f"document.readyState === 'complete' && ({condition})"):
            assert time.monotonic() < until, f"never became true: {condition}"
            time.sleep(0.02)

    def _is(self, condition: str) -> bool:
        try:
            return self.value(condition) is True
        except PageChangedError:
            return False

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is."""
        return self._ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def type(self, text: str) -> None:
        """Keys to whatever has the focus."""
        for letter in text:
            key = {"key": letter, "text": letter, "unmodifiedText": letter}
            self._ask("Input.dispatchKeyEvent", type="keyDown", **key)
            self._ask("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def press(self, key: str, code: int) -> None:
        """A key without a letter, such as Tab (9) or Enter (13)."""
        text = {"text": "\r"} if key == "Enter" else {}
        self._ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        with suppress(PageChangedError):  # Enter may lead to another page
            self._ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element."""
        x, y = self.value(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect(); "
            "return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        for what in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=what, x=x, y=y, button="left", clickCount=1)

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                part = os.read(self._read, 65536)
                assert part, "the browser has gone"
                self._rest += part
            one, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(one)
            if answer.get("id") == self._number:
                if "navigated or closed" in str(answer.get("error")):
                    raise PageChangedError(answer)
                assert "error" not in answer, answer
                return answer["result"]
