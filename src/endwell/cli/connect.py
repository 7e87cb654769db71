"""``endwell connect``: talk to a WebSocket server, typing on a terminal or through a pipe.

Each line of the input is sent as a text message; what comes is printed, binary as
hexadecimal. At the end the Ending is told, and the exit status is 0 if it was an
ordinary one. With --reconnect it comes back, unless the ending says that it should not.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import ssl
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from ..aio.websocket import WebSocket
from ..client.connect import ConnectKeywords, connect
from ..client.reconnecting import reconnecting
from ..client.retry import Stop
from ..codes import CloseCode
from ..ending import Ending
from ..errors import ConnectionClosed, HandshakeFailed, HandshakeRejected
from ..http import Response
from .line import Line
from .style import BOLD, DIM, GREEN, RED, paint, printable

__all__ = ["add", "run"]

#: Characters of the body of a refusal that are shown.
MAX_BODY = 2000
#: Bytes read from the input at once.
CHUNK = 2**16
#: Go to the line's beginning and erase it (ECMA-48 §8.3.41).
ERASE = "\r\x1b[K"


# argparse has no public name for the type.
def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("connect", help="talk to a WebSocket server", description=__doc__)
    parser.add_argument("url", metavar="URL", help="ws://... or wss://...")
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="sent with the request"
    )
    parser.add_argument(
        "--subprotocol", action="append", default=[], metavar="NAME", help="offered, in order"
    )
    parser.add_argument("--cafile", help="certificates to trust instead of the system's, PEM")
    parser.add_argument(
        "--wait",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="after the end of a pipe, close when nothing came for so long (default: %(default)s)",
    )
    parser.add_argument("--reconnect", action="store_true", help="come back when the connection ends")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Connect and talk. Returns 0 if the connection ended in an ordinary way, 1 if not, 2 for bad arguments."""
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.WARNING)
    try:
        keywords: ConnectKeywords = {
            "ssl": None if args.cafile is None else _trusting(args.cafile),
            "additional_headers": [_field(text) for text in args.header],
            "subprotocols": args.subprotocol,
        }
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        face = _Terminal() if terminal else _Pipe(args.wait)
        if args.reconnect:
            talk = _Return(args.url, keywords, face).talk()
        else:
            talk = _talk(connect(args.url, **keywords), face)
    except ValueError as error:
        print(f"endwell connect: {error}", file=sys.stderr)
        return 2
    return asyncio.run(talk)


async def _talk(opening: connect, face: _Pipe) -> int:
    try:
        ws = await opening
    except HandshakeFailed as failure:
        _show_failure(failure)
        return 1
    with face:
        await _converse(ws, face)
    ending = await ws.closed
    _say(str(ending), GREEN if ending.ok else RED)
    return 0 if ending.ok and not face.failed else 1


class _Return:
    """The same with one connection after the other."""

    def __init__(self, url: str, keywords: ConnectKeywords, face: _Pipe) -> None:
        self._client = reconnecting(url, on_ending=self._tell, **keywords)
        self._face = face
        self._status = 0
        self._farewell = ""

    async def talk(self) -> int:
        """Talk until there is nothing to come back for."""
        _on_signal(self._client.stop)
        # What the loop raises has been told by then.
        with suppress(ConnectionClosed, HandshakeFailed):
            async for ws in self._client:
                with self._face:
                    await _converse(ws, self._face)
                    await ws.closed
                _on_signal(self._client.stop)
                _say(self._farewell, RED if self._status else GREEN)
        return 1 if self._face.failed else self._status

    def _tell(self, last: Ending | HandshakeFailed, verdict: float | Stop) -> None:
        what_next = "" if isinstance(verdict, Stop) else f"; coming back in {verdict:.1f} s"
        if isinstance(last, HandshakeFailed):
            self._status = 1
            _show_failure(last, what_next)
        else:
            # Not said here: the face still has the terminal.
            self._status = 0 if last.ok else 1
            self._farewell = f"{last}{what_next}"


async def _converse(ws: WebSocket, face: _Pipe) -> None:
    typing = asyncio.create_task(_type(ws, face))

    def leave() -> None:
        # The first Ctrl-C closes, the second one does not wait for the peer.
        if ws.is_open:
            typing.cancel()
        else:
            ws.abort()

    _on_signal(leave)
    try:
        async for message in ws:
            face.show(message if isinstance(message, str) else f"0x{message.hex()}")
    finally:
        typing.cancel()
        with suppress(asyncio.CancelledError):
            await typing


def _on_signal(leave: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, leave)


async def _type(ws: WebSocket, face: _Pipe) -> None:
    """Send the lines of the input; at its end, close."""
    try:
        with suppress(ConnectionClosed):
            async for line in face.lines():
                await ws.send(line)
            await face.quiet()
    finally:
        await ws.close(CloseCode.NORMAL_CLOSURE)


class _Pipe:
    """Standard input and output as they are: lines in, messages out."""

    def __init__(self, wait: float) -> None:
        #: Whether the input held what cannot be sent.
        self.failed = False
        self._wait = wait
        self._shown = 0.0
        # Here and not in the generators, which end with each connection.
        self._lines: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._number = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_exc: object) -> None:
        pass

    def show(self, text: str) -> None:
        """A message came."""
        self._shown = time.monotonic()
        print(text, flush=True)

    async def lines(self) -> AsyncIterator[str]:
        """The lines of the input, to its end or to one that is not UTF-8."""
        try:
            async for line in self._raw_lines():
                yield line.decode()
        except UnicodeDecodeError:
            self.failed = True
            _say(f"line {self._number + 1} of the input is not UTF-8; nothing is sent from there on", RED)

    async def _raw_lines(self) -> AsyncIterator[bytes]:
        chunks = _chunks(sys.stdin.fileno())
        while True:
            while self._lines:
                yield self._lines[0]
                # Sent by now: else we were not asked for the next one.
                self._lines.popleft()
                self._number += 1
            chunk = await anext(chunks, None)
            if chunk is None:
                break
            first, *more = chunk.split(b"\n")
            self._parts.append(first)
            for piece in more:
                self._lines.append(b"".join(self._parts))
                self._parts = [piece]
        if last := b"".join(self._parts):
            yield last
            self._parts = []

    async def quiet(self) -> None:
        """The input has ended: return when nothing has come for a while.

        Whether a message answers another one only the application knows. Precedent:
        websocat closes at once, and then prints no answer to "echo hello | websocat";
        wscat has ``--wait``.
        """
        self._shown = time.monotonic()
        while (rest := self._shown + self._wait - time.monotonic()) > 0:  # noqa: ASYNC110  (mostly one turn)
            await asyncio.sleep(rest)


class _Terminal(_Pipe):
    """A line to type on, always the last of the screen; messages appear above it."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self._line = Line("> ")
        self._modes: list[Any] = []

    def __enter__(self) -> None:
        self._modes = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        _say("connected; Ctrl-D closes", DIM)
        self._write()

    def __exit__(self, *_exc: object) -> None:
        sys.stdout.write(ERASE)
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._modes)

    def show(self, text: str) -> None:
        shown = "\n  ".join(map(printable, text.split("\n")))
        self._write(f"{paint('<', BOLD)} {shown}\n")

    async def lines(self) -> AsyncIterator[str]:
        async for keys in _chunks(sys.stdin.fileno()):
            for line in self._line.feed(keys):
                self._write(f"{self._line.prompt}{line}\n")
                if line:
                    yield line
            self._write()
            if self._line.ended:
                return

    def _write(self, above: str = "") -> None:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
        sys.stdout.write(ERASE + above + self._line.draw(columns))
        sys.stdout.flush()


async def _chunks(fd: int) -> AsyncIterator[bytes]:
    """What can be read, as it comes. No thread: one that waits for input cannot be stopped."""
    while True:
        await _readable(fd)
        try:
            chunk = os.read(fd, CHUNK)
        except OSError:
            return  # EIO: the terminal is gone
        if not chunk:
            return
        yield chunk


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:
        return  # a file, or /dev/null: epoll(7) refuses what is always readable
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"header {text!r} is not 'NAME: VALUE'")
    return name.strip(), value.strip()


def _trusting(cafile: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:  # also what OpenSSL says about a file that holds something else
        raise ValueError(f"cannot use {cafile!r}: {error}") from None


def _show_failure(failure: HandshakeFailed, what_next: str = "") -> None:
    _say(f"{failure}{what_next}", RED)
    if isinstance(failure, HandshakeRejected):
        _show_body(failure.response)


def _show_body(response: Response) -> None:
    """A refusal's body, if it is text, for it often says why."""
    body = response.body.decode(errors="replace").strip()[:MAX_BODY]
    for line in body.splitlines():
        _say(f"  {printable(line)}", DIM)


def _say(text: str, style: str) -> None:
    # Not to standard output, which holds messages and nothing else.
    print(paint(text, style, sys.stderr), file=sys.stderr)
