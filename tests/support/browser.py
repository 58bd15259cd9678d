"""A real browser, driven by its own protocol over two pipes: keys, pointer, scripts, screenshots, what it loaded."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
"""Of every start; nothing is loaded but what a page asks for."""
_ON_3_AND_4 = """
import fcntl, os, sys
reading, writing = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3])
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The protocol's pipes are file descriptors 3 and 4 of the browser."""
_KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38, "Home": 36, "End": 35, "Tab": 9, " ": 32}


class Browser:
    """One tab of a window; what goes wrong in its page is kept in ``errors``, what it asks for in ``requests``."""

    def __init__(self, profile, width=1280, height=900, is_dark=False):
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        command = [BROWSER, *OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_3_AND_4, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self._numbers, self._events, self._left = itertools.count(1), deque(), b""
        self._session = None
        self.errors, self.requests = [], []
        target = self.ask("Target.getTargets")["targetInfos"][0]["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"},
        ])  # fmt: skip
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session = None
        self.ask("Browser.close")
        self._process.wait(timeout=30)
        self._in.close()
        self._out.close()

    def ask(self, method, **parameters):
        """What the browser answers to a method of its protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {} if self._session is None else {"sessionId": self._session}
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self._note(answer)

    def _read(self):
        while b"\0" not in self._left:
            part = os.read(self._in.fileno(), 2**20)
            assert part, "the browser ended"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        details = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(details["exceptionDetails"])
        if event.get("method") == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.errors.append(details["args"])
        if event.get("method") == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.errors.append(details["entry"])
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])

    def resize(self, width, height, scale=1):
        """Makes the window so large, in CSS pixels."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def open(self, url, is_ready="document.readyState === 'complete'"):
        """Opens a page and waits until an expression of its script is true."""
        self.ask("Page.navigate", url=url)
        self.wait(is_ready)

    def run(self, expression):
        """The value of an expression of the page's script."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (expression, found)
        return found["result"].get("value")

    def wait(self, expression, seconds=60):
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.02)

    def frames(self, count=2):
        """Waits until so many frames were drawn."""
        self.run(
            f"new Promise((done) => {{ let left = {count}; const next = () => left-- ? requestAnimationFrame(next) : "
            "done(0); next(); })"
        )

    def press(self, key, times=1):
        """Presses a key, in what has the focus."""
        for _ in range(times):
            shared = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": _KEYS[key]}
            self.ask("Input.dispatchKeyEvent", type="keyDown", **shared, **({"text": key} if key == " " else {}))
            self.ask("Input.dispatchKeyEvent", type="keyUp", **shared)

    def box(self, selector):
        """[left, top, width, height] of an element, which is brought into view."""
        return self.run(
            f"(() => {{ const found = document.querySelector({selector!r}); found.scrollIntoViewIfNeeded(); "
            "const box = found.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })()"
        )

    def pointer(self, kind, x, y, is_down=False):
        """Moves, presses or releases the pointer at a place of the window."""
        held = {"button": "left", "buttons": int(is_down), "clickCount": 1} if kind != "mouseMoved" or is_down else {}
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **held)

    def click(self, selector):
        """Clicks on the middle of an element."""
        left, top, width, height = self.box(selector)
        x, y = left + width / 2, top + height / 2
        self.pointer("mousePressed", x, y, is_down=True)
        self.pointer("mouseReleased", x, y)

    def drag(self, selector, start, stop, steps=8):
        """Drags along an element, between two shares of its width."""
        left, top, width, height = self.box(selector)
        places = [left + width * (start + (stop - start) * step / steps) for step in range(steps + 1)]
        y = top + height / 2
        self.pointer("mouseMoved", places[0], y)
        self.pointer("mousePressed", places[0], y, is_down=True)
        for x in places[1:]:
            self.pointer("mouseMoved", x, y, is_down=True)
        self.pointer("mouseReleased", places[-1], y)

    def screenshot(self, file, is_whole=False):
        """Writes what the window shows, or the whole page, as PNG."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=is_whole)
        file.write_bytes(base64.b64decode(found["data"]))
