"""A headless Chromium, driven over its own pipe: no driver program, no package, no port, no network.

The DevTools protocol is JSON between null bytes: commands on the browser's file descriptor 3, answers and events on 4.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
FLAGS = ("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
QUIET = ("--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update")
PATIENCE = 30.0


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One browser with one page. Use it as a context manager.

    Args:
        program: From `find_chromium`.
        profile: Folder for its profile; a second browser on the same one finds what the first has stored.
    """

    def __init__(self, program: str, profile: Path) -> None:
        theirs_in, self._write = _high_pipe()
        self._read, theirs_out = _high_pipe()
        launch = [sys.executable, "-c", LAUNCH, str(theirs_in), str(theirs_out)]
        self._process = subprocess.Popen(
            [*launch, program, *FLAGS, *QUIET, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._number, self._session = b"", 0, ""
        self._loaded: set[str] = set()
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask("Page.enable")
        self._ask("Page.setLifecycleEventsEnabled", enabled=True)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = ""
        try:
            self._ask("Browser.close")
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._write)
            os.close(self._read)

    def open(self, url: str) -> None:
        """Go to a page and wait until it has loaded."""
        self._load("Page.navigate", url=url)

    def reload(self) -> None:
        """Load the page anew."""
        self._load("Page.reload")

    def run(self, script: str) -> Any:
        """Value of an expression in the page."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression is true."""
        self.until(lambda: self.run(script), script)

    def until(self, done: Callable[[], Any], what: str) -> None:
        """Wait until `done()` is true."""
        end = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(what)
            time.sleep(0.02)

    def press(self, key: str, code: str = "") -> None:
        """Press and release one key, as a keyboard would; `key` is what is written on it."""
        text = key if len(key) == 1 else {"Enter": "\r", " ": " "}.get(key)
        number = {"Enter": 13, "Backspace": 8, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}.get(
            key, ord(key.upper()) if len(key) == 1 and key.isalnum() and key.isascii() else 0
        )
        event: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": number, "code": code or _code(key)}
        down = event | ({"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"})
        self._ask("Input.dispatchKeyEvent", **down)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        """Press one key after another."""
        for key in text:
            self.press(key)

    def click(self, selector: str) -> None:
        """Press the left mouse button in the middle of an element."""
        middle = "(b => [b.x + b.width / 2, b.y + b.height / 2])"
        box = self.run(f"{middle}(document.querySelector({selector!r}).getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in a file input."""
        root = self._ask("DOM.getDocument")["root"]["nodeId"]
        node = self._ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._ask("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def controls(self) -> dict[str, str]:
        """Names of all buttons, fields and images that assistive technology finds, with their roles; no name is ''."""
        nodes = self._ask("Accessibility.getFullAXTree")["nodes"]
        kinds = {"button", "textbox", "image", "progressbar", "group"}
        seen = [n for n in nodes if not n.get("ignored") and n["role"]["value"] in kinds]
        return {n.get("name", {}).get("value", ""): n["role"]["value"] for n in seen}

    def downloads(self, folder: Path) -> None:
        """Let the page save files, into this folder."""
        session, self._session = self._session, ""
        self._ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self._session = session

    def size(self, width: int, height: int, touch: bool = False, scale: float = 1, dark: bool = False) -> None:
        """Size of the window in CSS px, on a phone or a desktop, light or dark."""
        screen = {"width": width, "height": height, "deviceScaleFactor": scale}
        self._ask("Emulation.setDeviceMetricsOverride", mobile=touch, **screen)
        self._ask("Emulation.setTouchEmulationEnabled", enabled=touch)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._ask("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, file: Path) -> None:
        """What is in view, as PNG."""
        file.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))

    def _load(self, method: str, **params: Any) -> None:
        # the page that is left may still report its own loading
        known = {self._ask("Page.getFrameTree")["frameTree"]["frame"]["loaderId"], *self._loaded}
        self._ask(method, **params)
        while self._loaded <= known:
            self._receive(method)

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _receive(self, method: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], PATIENCE)[0]:
                raise TimeoutError(f"{method}: the browser does not answer")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError(f"{method}: the browser has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer = dict(json.loads(message))
        if answer.get("method") == "Page.lifecycleEvent" and answer["params"]["name"] == "load":
            self._loaded.add(answer["params"]["loaderId"])
        return answer


def _code(key: str) -> str:
    return f"Digit{key}" if key.isdigit() else f"Key{key.upper()}" if len(key) == 1 and key.isalpha() else key


def _high_pipe() -> tuple[int, int]:
    """A pipe whose ends are above the descriptors 3 and 4, onto which they are laid in the browser."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
