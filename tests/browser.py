"""A real browser for tests of pages: Debian's chromium without a screen, spoken to through a pipe (Chrome DevTools
Protocol), so that no driver, no port and no package is needed. `CHROMIUM` is None where it is not installed.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium")

# Without the flags on the background, it asks for addresses of its own at every start.
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe"
).split()

# The browser reads commands from descriptor 3 and writes to 4.
_WIRED = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, descriptor in zip(ends, (3, 4)):
    os.dup2(end, descriptor)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A browser that runs while the context lasts."""

    def __enter__(self) -> Browser:
        assert CHROMIUM
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        their_input, our_output = os.pipe()
        our_input, their_output = os.pipe()
        pipes = [str(their_input), str(their_output)]
        command = [sys.executable, "-c", _WIRED, *pipes, CHROMIUM, *_FLAGS, f"--user-data-dir={self._profile.name}"]
        self._process = subprocess.Popen(
            command, pass_fds=(their_input, their_output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(their_input)
        os.close(their_output)
        self._input, self._output = os.fdopen(our_input, "rb"), os.fdopen(our_output, "wb")
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._output.close()
        self._process.terminate()
        self._process.wait()
        self._input.close()
        self._profile.cleanup()

    def open(self, file: Path, *, dark: bool = False, width: int = 1280) -> Page:
        """A page that was loaded from a file, at a width, in a light or a dark scheme."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.call("Page.navigate", url=file.absolute().as_uri())
        page.wait_for("Page.loadEventFired")
        return page

    def call(self, method: str, session: str | None = None, /, **parameters: Any) -> Any:
        """What the browser answers to a command; events that come meanwhile are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._output.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        self._output.flush()
        while True:
            answer = self.read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def read(self) -> dict[str, Any]:
        """The next message."""
        text = bytearray()
        while (byte := self._input.read(1)) != b"\0":
            assert byte, "the browser is gone"
            text += byte
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


class Page:
    """A page in the browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters: Any) -> Any:
        """What the browser answers to a command about this page."""
        return self._browser.call(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page, as plain data."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press_tab(self) -> None:
        """Press the tabulator key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def wait_for(self, event: str) -> None:
        """Wait until an event has come."""
        while not self._of(event):
            self._browser.read()

    @property
    def requests(self) -> list[str]:
        """The address of each request that left the page, its own among them: not of those that its policy refused."""
        failed = [event["params"] for event in self._of("Network.loadingFailed")]
        refused = {params["requestId"] for params in failed if params.get("blockedReason") == "csp"}
        sent = [event["params"] for event in self._of("Network.requestWillBeSent")]
        return [params["request"]["url"] for params in sent if params["requestId"] not in refused]

    @property
    def console(self) -> list[dict[str, Any]]:
        """What the browser had to say: messages, errors and refusals of the page's policy."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for kind in kinds for event in self._of(kind)]

    def _of(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self._browser.events if e["method"] == kind and e.get("sessionId") == self._session]
