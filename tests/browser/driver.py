"""A real headless browser, driven directly over DevTools or WebDriver BiDi."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import endwell
from tests.cli.process import PATIENCE

# Stops network traffic that a new Firefox starts by itself. The preferences that Mozilla recommends for
# automation would also change what is tested.
FIREFOX = {
    "remote.prefs.recommended": False,
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
    "trailhead.firstrun.didSeeAboutWelcome": True,
}

#: Seconds for opening a tab, which takes less than one. A browser that needs more is started again.
OPEN_TIME = 90

#: For DevTools, the code and the number of the keys that are no characters.
KEYS = {
    "Tab": ("Tab", 9),
    "Enter": ("Enter", 13),
    "Escape": ("Escape", 27),
    " ": ("Space", 32),
    "PageUp": ("PageUp", 33),
    "PageDown": ("PageDown", 34),
    "End": ("End", 35),
    "Home": ("Home", 36),
    "ArrowLeft": ("ArrowLeft", 37),
    "ArrowUp": ("ArrowUp", 38),
    "ArrowRight": ("ArrowRight", 39),
    "ArrowDown": ("ArrowDown", 40),
}
#: For WebDriver, their characters (https://www.w3.org/TR/webdriver2/#keyboard-actions).
WEBDRIVER_KEYS = {
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Shift": "\ue008",
    "Control": "\ue009",
    "Alt": "\ue00a",
    "Escape": "\ue00c",
    "PageUp": "\ue00e",
    "PageDown": "\ue00f",
    "End": "\ue010",
    "Home": "\ue011",
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
}


class Wire:
    """Commands as JSON over a WebSocket, each with its response."""

    def __init__(self, ws: endwell.WebSocket, sock: socket.socket) -> None:
        self._ws = ws
        self._sock = sock
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        command = {"id": number, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        with suppress(endwell.ConnectionClosed):
            await self._ws.send(json.dumps(command))
        if self._reader.done():
            answer.cancel()
        return await asyncio.wait_for(answer, PATIENCE)

    async def _read(self) -> None:
        async for message in self._ws:
            told = json.loads(message)
            waiting = self._waiting.pop(told.get("id"), None)
            if waiting is None or waiting.done():
                continue
            if "error" in told:
                waiting.set_exception(RuntimeError(f"the browser says: {told}"))
            else:
                waiting.set_result(told["result"])
        for waiting in self._waiting.values():
            if not waiting.done():  # its call has given up
                waiting.set_exception(RuntimeError(f"the browser has gone: {self._ws.ending}"))

    def waits_for_browser(self) -> bool:
        """Whether the browser's system has all that was sent, and all was read that has come."""
        queues = [fcntl.ioctl(self._sock, queue, bytes(4)) for queue in (termios.TIOCOUTQ, termios.FIONREAD)]
        return self._ws.is_open and not any(map(any, queues))

    async def close(self) -> None:
        await self._ws.close()
        await self._reader


class Chromium:
    """Chromium's DevTools protocol."""

    def __init__(self, wire: Wire) -> None:
        self._call = wire.call

    async def enter(self) -> None:
        """Nothing to do, nor in :meth:`leave`: it serves any number of clients."""

    leave = enter

    async def open(self) -> tuple[str, str]:
        target = (await self._call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self._call("Target.attachToTarget", targetId=target, flatten=True)
        return target, attached["sessionId"]

    async def navigate(self, tab: tuple[str, str], url: str) -> None:
        await self._call("Page.navigate", tab[1], url=url)

    async def evaluate(self, tab: tuple[str, str], expression: str) -> Any:
        told = await self._call(
            "Runtime.evaluate", tab[1], expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def resize(self, tab: tuple[str, str], width: int, height: int) -> None:
        await self._call(
            "Emulation.setDeviceMetricsOverride",
            tab[1],
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    async def scheme(self, tab: tuple[str, str], dark: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self._call("Emulation.setEmulatedMedia", tab[1], features=[feature])

    async def press(self, tab: tuple[str, str], key: str, modifiers: tuple[str, ...]) -> None:
        bits = sum({"Alt": 1, "Control": 2, "Shift": 8}[name] for name in modifiers)
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code, number = KEYS.get(key, ("", 0))
        shared = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": bits}
        kind = "keyDown" if text else "rawKeyDown"
        await self._call("Input.dispatchKeyEvent", tab[1], type=kind, text=text, **shared)
        await self._call("Input.dispatchKeyEvent", tab[1], type="keyUp", **shared)

    async def screenshot(self, tab: tuple[str, str]) -> bytes:
        told = await self._call("Page.captureScreenshot", tab[1], format="png")
        return base64.b64decode(told["data"])

    async def freeze(self, tab: tuple[str, str], frozen: bool) -> None:
        await self._call("Page.setWebLifecycleState", tab[1], state="frozen" if frozen else "active")

    async def close(self, tab: tuple[str, str]) -> None:
        await self._call("Page.close", tab[1])


class Firefox:
    """WebDriver BiDi."""

    def __init__(self, wire: Wire) -> None:
        self._call = wire.call

    async def enter(self) -> None:
        await self._call("session.new", capabilities={})

    async def open(self) -> str:
        return (await self._call("browsingContext.create", type="tab"))["context"]

    async def navigate(self, tab: str, url: str) -> None:
        await self._call("browsingContext.navigate", context=tab, url=url, wait="none")

    async def evaluate(self, tab: str, expression: str) -> Any:
        told = await self._call(
            "script.evaluate", expression=expression, target={"context": tab}, awaitPromise=True
        )
        assert told["type"] == "success", told
        return told["result"].get("value")

    async def resize(self, tab: str, width: int, height: int) -> None:
        viewport = {"width": width, "height": height}
        await self._call("browsingContext.setViewport", context=tab, viewport=viewport)

    async def press(self, tab: str, key: str, modifiers: tuple[str, ...]) -> None:
        # https://www.w3.org/TR/webdriver2/#keyboard-actions
        codes = [WEBDRIVER_KEYS.get(name, name) for name in (*modifiers, key)]
        actions = [{"type": "keyDown", "value": code} for code in codes]
        actions += [{"type": "keyUp", "value": code} for code in reversed(codes)]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        await self._call("input.performActions", context=tab, actions=[source])

    async def screenshot(self, tab: str) -> bytes:
        return base64.b64decode((await self._call("browsingContext.captureScreenshot", context=tab))["data"])

    async def close(self, tab: str) -> None:
        # Otherwise beforeunload would not run, as it does when a user closes the tab.
        await self._call("browsingContext.close", context=tab, promptUnload=True)

    async def leave(self) -> None:
        await self._call("session.end")


class Browser:
    """The process of a browser; :meth:`tab` opens a tab."""

    def __init__(self, name: str, command: list[str], home: Path) -> None:
        self.name = name
        self._command = command
        self._home = home
        self._killed = False
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(self._home)},
            start_new_session=True,
            text=True,
            errors="replace",
        )
        try:
            self._url = _address(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    async def _connect(self) -> Wire:
        place = urlsplit(self._url)
        sock = socket.create_connection((place.hostname, place.port), PATIENCE)
        how = {"max_size": None, "ping_interval": None, "compression": None}
        # A browser that starts beside other programs may answer late.
        return Wire(await endwell.connect(self._url, sock=sock, open_timeout=PATIENCE, **how), sock)

    async def _enter(self, wire: Wire) -> tuple[Chromium | Firefox, Any]:
        """A new session, and a tab in it."""
        made = (Firefox if self.name == "firefox" else Chromium)(wire)
        await made.enter()
        return made, await made.open()

    async def _open(self) -> tuple[Wire, Chromium | Firefox, Any]:
        """Open a tab. A browser that does not answer is started again, once.

        A Firefox has not answered this command for minutes. No page is loaded yet, so of what is tested only the
        client of this connection is involved: it is checked that nothing waits for it.
        """
        wire = await self._connect()
        try:
            async with asyncio.timeout(OPEN_TIME):
                return wire, *await self._enter(wire)
        except TimeoutError:
            assert wire.waits_for_browser(), "the client has not sent the command, or not read the answer"
        self.stop()
        await wire.close()
        self._start()
        wire = await self._connect()
        return wire, *await self._enter(wire)

    @asynccontextmanager
    async def tab(self, url: str = "about:blank") -> AsyncIterator[Tab]:
        """A new tab that shows ``url``."""
        wire, made, handle = await self._open()
        try:
            tab = Tab(made, handle)
            try:
                await tab.navigate(url)
                yield tab
            finally:
                # Also after a failed test: its page would stay open during later tests.
                if not self._killed:
                    await tab.close()
        finally:
            if not self._killed:
                await made.leave()
            await wire.close()

    def kill(self) -> None:
        """Kill all its processes at once, as an out-of-memory killer does."""
        self._killed = True
        os.killpg(self._process.pid, signal.SIGKILL)


class Tab:
    """A visible page."""

    def __init__(self, protocol: Chromium | Firefox, handle: Any) -> None:
        self._protocol = protocol
        self._handle = handle
        self._closed = False

    async def navigate(self, url: str) -> None:
        await self._protocol.navigate(self._handle, url)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression: a string, a number or a boolean."""
        return await self._protocol.evaluate(self._handle, expression)

    async def do(self, statement: str) -> None:
        """Run a statement that may end the page, shortly after the command returned."""
        await self.evaluate(f"void setTimeout(() => {{ {statement} }})")

    async def resize(self, width: int, height: int) -> None:
        """Give the page this size in CSS pixels."""
        await self._protocol.resize(self._handle, width, height)

    async def scheme(self, dark: bool) -> None:
        """Set what the user prefers: a dark or a light page. A Firefox gets it when it starts."""
        assert isinstance(self._protocol, Chromium), "Firefox has no command for it"
        await self._protocol.scheme(self._handle, dark)

    async def press(self, key: str, *modifiers: str) -> None:
        """Press a key, such as ``Tab``, ``Enter`` or ``a``, as a user does."""
        await self._protocol.press(self._handle, key, modifiers)

    async def screenshot(self) -> bytes:
        """A picture of the window, as PNG."""
        return await self._protocol.screenshot(self._handle)

    async def freeze(self, frozen: bool = True) -> None:
        """Freeze the page, as Chromium freezes a page that was hidden for long, or resume it."""
        assert isinstance(self._protocol, Chromium), "no other browser does this"
        await self._protocol.freeze(self._handle, frozen)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._protocol.close(self._handle)


@contextmanager
def running(
    name: str, prefix: tuple[str, ...] = (), preferences: dict[str, Any] | None = None
) -> Iterator[Browser]:
    """The browser ``name``, started with the command prefix ``prefix``; it ends with the block.

    ``preferences`` are those of Firefox.
    """
    program = shutil.which({"chromium": "chromium", "firefox": "firefox-esr"}[name])
    if program is None:
        pytest.fail(f"{name} is not installed; on Debian: apt-get install chromium firefox-esr")
    home = Path(tempfile.mkdtemp(prefix=f"endwell-{name}-"))
    if name == "chromium":
        # --no-sandbox: root has no other way, and these pages are ours.
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={home}"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
    else:
        told = {**FIREFOX, **(preferences or {})}
        lines = [f"user_pref({json.dumps(key)}, {json.dumps(value)});\n" for key, value in told.items()]
        (home / "user.js").write_text("".join(lines))
        flags = ["--headless", "--no-remote", "--profile", str(home)]
    try:
        browser = Browser(name, [*prefix, program, *flags, "--remote-debugging-port=0", "about:blank"], home)
        try:
            yield browser
        finally:
            browser.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if found := re.search(r"(DevTools|WebDriver BiDi) listening on (ws://\S+)", line):
            _drain(process)
            return found[2] + ("/session" if found[1] != "DevTools" else "")
    pytest.fail(f"the browser ended before it could be driven:\n{''.join(told)[-2000:]}")


def _drain(process: subprocess.Popen[str]) -> None:
    """Read its output: a full pipe would block it."""
    import threading

    def read() -> None:
        with suppress(ValueError):
            for _ in process.stderr or ():
                pass

    threading.Thread(target=read, daemon=True).start()
