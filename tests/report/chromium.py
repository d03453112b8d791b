"""A page in a real browser: headless Chromium over its debugging pipe (JSON messages that end in a zero byte), no
driver needed.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--remote-debugging-pipe",
    "--disable-dev-shm-usage",
)


class Browser:
    """One tab. `errors` holds what the console and uncaught exceptions said."""

    def __init__(self, commands: int, events: int) -> None:
        self._commands, self._events = os.fdopen(commands, "wb", 0), os.fdopen(events, "rb", 0)
        self._number, self._rest, self.errors, self._loaded = 0, b"", [], False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = None
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def open(self, page: Path) -> None:
        self._loaded = False
        self.send("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._receive()

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def close(self) -> None:
        self._session = None
        self.send("Browser.close")
        self._commands.close()
        self._events.close()

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = self._events.read(1 << 16)
            assert part, "The browser ended."
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        method, said = message.get("method"), message.get("params", {})
        self._loaded |= method == "Page.loadEventFired"
        if method == "Runtime.exceptionThrown":
            self.errors.append(said["exceptionDetails"])
        if method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(said["entry"])
        if method == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
            self.errors.append(said)
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Chromium with a profile folder of its own; it reads commands from descriptor 3 and answers on 4."""
    assert CHROMIUM
    (command_read, command_write), (event_read, event_write) = os.pipe(), os.pipe()
    script = f'exec "$0" "$@" 3<&{command_read} 4>&{event_write}'
    arguments = ["bash", "-c", script, CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"]
    with subprocess.Popen(
        arguments, pass_fds=(command_read, event_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        os.close(command_read)
        os.close(event_write)
        tab = Browser(command_write, event_read)
        try:
            yield tab
        finally:
            tab.close()
            process.wait(20)
