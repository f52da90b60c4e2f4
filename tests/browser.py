"""A real browser for tests of pages: headless Chromium, spoken to by its DevTools protocol.

`with browser(folder) as tab` skips the test where there is none, and says how to get one.
"""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
    "--remote-debugging-port=0",
)
DEADLINE = 60.0


class Tab:
    """One page. `asked` are the addresses that it wanted, `complaints` what it wrote on its console or threw."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Any) -> None:
        self._loop, self._socket, self._number = loop, socket, 0
        self.session = ""
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self._seen: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), DEADLINE))

    def open(self, page: Path) -> None:
        """Load a file, until it is shown."""
        self.visit(page.absolute().as_uri())

    def visit(self, address: str) -> None:
        """Load what is there, until it is shown."""
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self._seen.clear()
        self.call("Page.navigate", url=address)
        self._loop.run_until_complete(asyncio.wait_for(self._until("Page.loadEventFired"), DEADLINE))

    def sized(self, width: int, height: int = 800) -> None:
        """As on a screen of this size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def seen_as(self, *, media: str = "screen", scheme: str = "light") -> None:
        """On a screen or on paper (`print`), light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def awaited(self, expression: str) -> Any:
        """What the promise of an expression comes to."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def key(self, name: str) -> None:
        """One key, pressed and let go: a character, or `Tab`, `Enter`."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r")}.get(name, (ord(name[0].upper()), name))
        told = {"key": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **told)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def text(self, selector: str) -> str:
        """What is read in an element; nothing where there is none."""
        return str(self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def picture(self, file: Path) -> Path:
        """The whole page, as a PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["data"]))
        return file

    def paper(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        said: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        await self._socket.send_str(json.dumps(said | ({"sessionId": self.session} if self.session else {})))
        while True:
            heard = await self._hear()
            if heard.get("id") == said["id"]:
                assert "error" not in heard, (method, heard["error"])
                answer: dict[str, Any] = heard["result"]
                return answer

    async def _until(self, event: str) -> None:
        while event not in self._seen:
            await self._hear()

    async def _hear(self) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads((await self._socket.receive()).data)
        told = heard.get("params", {})
        match heard.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(told["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(told["entry"]["text"])
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(told))
            case str(name):
                self._seen.append(name)
            case _:
                pass
        return heard


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a browser whose own files lie in `folder`."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("pages are checked in a real browser: install Chromium (Debian: apt-get install chromium)")
    process = subprocess.Popen(
        [found, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    loop = asyncio.new_event_loop()
    try:
        yield from _connected(loop, _address(process))
    finally:
        process.kill()
        process.communicate()
        loop.close()


def _connected(loop: asyncio.AbstractEventLoop, address: str) -> Iterator[Tab]:
    from aiohttp import ClientSession

    async def begin() -> tuple[ClientSession, Any]:
        session = ClientSession()
        return session, await session.ws_connect(address, max_msg_size=0)

    session, socket = loop.run_until_complete(begin())
    tab = Tab(loop, socket)
    try:
        target = tab.call("Target.createTarget", url="about:blank")["targetId"]
        tab.session = tab.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        yield tab
    finally:
        loop.run_until_complete(socket.close())
        loop.run_until_complete(session.close())


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if "DevTools listening on" in line:
            return line.split("on", 1)[1].strip()
    pytest.fail("the browser ended before it answered")
