"""A page in headless Chromium, asked through the DevTools protocol: the page itself may run no script."""

import asyncio
import base64
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
)
_PATIENCE = 60  # seconds
Ask = Callable[..., Awaitable[Any]]


def visit(page: Path, questions: Callable[[Ask], Awaitable[Any]]) -> Any:
    """Open a file and return what `questions` finds out; it calls `ask(method, **parameters)` of the protocol."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        assert CHROMIUM is not None
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                return asyncio.run(asyncio.wait_for(_visit(_port(Path(profile)), page, questions), _PATIENCE))
            finally:
                process.kill()


def _port(profile: Path) -> int:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        file = profile / "DevToolsActivePort"
        if file.is_file() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise AssertionError("Chromium has not opened its port")


async def _visit(port: int, page: Path, questions: Callable[[Ask], Awaitable[Any]]) -> Any:
    async with aiohttp.ClientSession() as session:
        targets = await (await session.get(f"http://127.0.0.1:{port}/json")).json()
        address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
        async with session.ws_connect(address, max_msg_size=0) as socket:
            number = 0
            requests: list[str] = []

            async def receive(wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
                while True:
                    message = await socket.receive_json()
                    if message.get("method") == "Network.requestWillBeSent":
                        requests.append(message["params"]["request"]["url"][:100])
                    if wanted(message):
                        return message

            async def ask(method: str, **parameters: Any) -> Any:
                nonlocal number
                number += 1
                own = number
                await socket.send_json({"id": own, "method": method, "params": parameters})
                answer = await receive(lambda message: message.get("id") == own)
                assert "error" not in answer, answer
                return answer["result"]

            await ask("Page.enable")
            await ask("Network.enable")
            await ask("Page.navigate", url=page.resolve().as_uri())
            await receive(lambda message: message.get("method") == "Page.loadEventFired")
            return await questions(ask), requests


async def evaluate(ask: Ask, expression: str) -> Any:
    """Return the value of a JavaScript expression; promises are waited for."""
    answer = await ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
    assert "exceptionDetails" not in answer, answer
    return answer["result"]["value"]


async def resize(ask: Ask, width: int, *, dark: bool = False) -> None:
    """Give the window a width in CSS pixels, and the reader's taste in colours."""
    await ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await ask("Emulation.setEmulatedMedia", features=[scheme])


async def screenshot(ask: Ask) -> bytes:
    """Return the whole page as PNG."""
    return base64.b64decode((await ask("Page.captureScreenshot", captureBeyondViewport=True))["data"])
