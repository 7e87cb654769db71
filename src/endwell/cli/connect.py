"""``endwell connect``: exchange messages with a WebSocket server, on a terminal or through a pipe.

Each line of the input, ended by LF or CR LF, is sent as a text message. Received messages are printed, binary
ones in hexadecimal. -v shows the handshake, -vv also each frame. At the end, the command prints the Ending;
the exit status is 0 for an ordinary ending, else 1. With --reconnect, it connects again, unless the ending
rules that out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from ..aio.websocket import WebSocket
from ..client.connect import ConnectKeywords, connect
from ..client.reconnecting import reconnecting
from ..client.retry import StopReason
from ..codes import CloseCode
from ..ending import Ending
from ..errors import ConnectionClosed, HandshakeError, HandshakeRejected
from ..http import Response
from .formats import Format
from .line import Line
from .log import logging_to
from .options import add_options, certificate_hint, check_tls, keywords_of
from .streams import discard_output
from .style import BOLD, DIM, GREEN, RED, paint, printable

if sys.platform != "win32":
    import termios
    import tty

__all__ = ["add", "run"]

#: Maximum characters of the body of an HTTP error response that are shown.
MAX_BODY = 2000
#: Maximum bytes of one read from the input.
CHUNK = 2**16
#: Moves the cursor to the start of the line and erases the line (ECMA-48 §8.3.41).
ERASE = "\r\x1b[K"


# argparse has no public name for the type.
def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "connect", help="exchange messages with a WebSocket server", description=__doc__
    )
    parser.add_argument("url", metavar="URL", help="ws://... or wss://...")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--binary", action="store_true", help="send binary messages, and write received ones as raw bytes"
    )
    form.add_argument(
        "--hex",
        action="store_true",
        help="send binary messages that are typed in hexadecimal, and print all messages in hexadecimal",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each message and for the ending"
    )
    parser.add_argument("--one-message", action="store_true", help="send the whole input as one message")
    parser.add_argument(
        "--wait",
        type=_seconds,
        metavar="SECONDS",
        help="after the end of the input, close when no message arrives for this time (default: 1; on a terminal 0)",
    )
    parser.add_argument("--reconnect", action="store_true", help="connect again when the connection ends")
    add_options(parser)
    parser.set_defaults(run=run, verbose_help="show the handshake, without credentials; -vv: also each frame")


def run(args: argparse.Namespace) -> int:
    """Run the command. Returns 0 after an ordinary ending, 1 after any other, 2 for wrong arguments."""
    form = Format(binary=args.binary, hexadecimal=args.hex, in_json=args.json)
    try:
        check_tls(args, args.url)
        keywords = keywords_of(args)
        terminal = sys.stdin.isatty() and sys.stdout.isatty() and not (args.json or args.one_message)
        wait = args.wait if args.wait is not None else 0.0 if terminal else 1.0
        face = _Terminal(form, wait) if terminal else _Pipe(form, wait, whole=args.one_message)
        if args.reconnect:
            session = _Reconnecting(args.url, keywords, face).run()
        else:
            session = _connect_once(connect(args.url, **keywords), face)
    except ValueError as error:
        print(f"endwell connect: {error}", file=sys.stderr)
        return 2
    with logging_to(face.note, args.verbose):
        try:
            return asyncio.run(session)
        except _OutputError as error:
            discard_output()
            print(f"endwell connect: cannot write the output: {error}", file=sys.stderr)
            return 1


class _OutputError(Exception):
    """Standard output cannot be written, for another reason than a closed pipe."""


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # nan is not, either
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more, not {text!r}")
    return seconds


async def _connect_once(opening: connect, face: _Pipe) -> int:
    try:
        ws = await opening
    except HandshakeError as failure:
        face.report_end(failure)
        _show_failure(failure)
        return 1
    with face:
        await _exchange(ws, face)
    ending = await ws.closed
    face.report_end(ending)
    _print(str(ending), GREEN if ending.ok else RED)
    return 0 if ending.ok and not face.failed else 1


class _Reconnecting:
    """The command with ``--reconnect``: one connection after the other."""

    def __init__(self, url: str, keywords: ConnectKeywords, face: _Pipe) -> None:
        self._client = reconnecting(url, on_ending=self._on_ending, **keywords)
        self._face = face
        self._status = 0
        self._end_text = ""

    async def run(self) -> int:
        """Connect, and connect again until the client stops; returns the exit status."""
        _on_signal(self._client.stop)
        # The `on_ending` callback has shown what the loop raises.
        with suppress(ConnectionClosed, HandshakeError):
            async for ws in self._client:
                with self._face:
                    await _exchange(ws, self._face)
                    await ws.closed
                _on_signal(self._client.stop)
                _print(self._end_text, RED if self._status else GREEN)
        return 1 if self._face.failed else self._status

    def _on_ending(self, last: Ending | HandshakeError, verdict: float | StopReason) -> None:
        what_next = "" if isinstance(verdict, StopReason) else f"; reconnecting in {verdict:.1f} s"
        self._face.report_end(last)
        if isinstance(last, HandshakeError):
            self._status = 1
            _show_failure(last, what_next)
        else:
            # Printed later, because the face still controls the terminal.
            self._status = 0 if last.ok else 1
            self._end_text = f"{last}{what_next}"


async def _exchange(ws: WebSocket, face: _Pipe) -> None:
    sending = asyncio.create_task(_send_input(ws, face))

    def leave() -> None:
        # The first Ctrl-C closes the connection; the second one aborts it.
        if ws.is_open:
            sending.cancel()
        else:
            ws.abort()

    _on_signal(leave)
    try:
        async for message in ws:
            face.show(message)
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending


def _on_signal(leave: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, leave)


async def _send_input(ws: WebSocket, face: _Pipe) -> None:
    """Send the messages of the input, then close the connection."""
    try:
        with suppress(ConnectionClosed):
            async for message in face.messages():
                await ws.send(message)
            await face.wait_until_quiet()
    finally:
        await ws.close(CloseCode.NORMAL_CLOSURE)


class _Pipe:
    """Reads messages from standard input and writes received ones to standard output."""

    def __init__(self, form: Format, wait: float = 0.0, *, whole: bool = False) -> None:
        #: Whether the input contained a line that cannot be sent.
        self.failed = False
        self._form = form
        self._wait = wait
        self._whole = whole
        self._shown = 0.0
        # Kept here, because the generators end with each connection.
        self._lines: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._number = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_exc: object) -> None:
        pass

    def show(self, message: str | bytes) -> None:
        """Write a received message."""
        self._shown = time.monotonic()
        self._write_out(self._form.output(message))

    def _write_out(self, output: str | bytes) -> None:
        try:
            if isinstance(output, str):
                sys.stdout.write(output)
                sys.stdout.flush()
            else:
                sys.stdout.buffer.write(output)
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:  # such as a full disk
            raise _OutputError(error.strerror) from None

    def report_end(self, last: Ending | HandshakeError) -> None:
        """With ``--json``, print the ending of the connection, or the failure to open it."""
        if not self._form.in_json:
            return
        fields: dict[str, Any] = {}
        if isinstance(last, HandshakeError):
            fields["failure"] = str(last)
            fields["phase"] = last.phase
            if isinstance(last, HandshakeRejected):
                fields["status"] = last.response.status
            last = last.ending
        self._write_out(self._form.record({**fields, "ending": last.as_dict()}) + "\n")

    def note(self, text: str) -> None:
        """Print a remark, such as a log line."""
        _print(text, DIM)

    async def messages(self) -> AsyncIterator[str | bytes]:
        """Yield the messages of the input, up to its end or to the first malformed line."""
        async for line in self._raw_lines():
            try:
                message = self._form.message(line.removesuffix(b"\r"))
            except ValueError:
                self.failed = True
                what = "the input" if self._whole else f"line {self._number + 1} of the input"
                _print(f"{what} is not {self._form.wanted}; this and the rest of the input are not sent", RED)
                return
            yield message

    async def _raw_lines(self) -> AsyncIterator[bytes]:
        chunks = _chunks(sys.stdin.fileno())
        while True:
            while self._lines:
                yield self._lines[0]
                # The consumer has sent the line, because it asks for the next one.
                self._lines.popleft()
                self._number += 1
            chunk = await anext(chunks, None)
            if chunk is None:
                break
            if self._whole:
                self._parts.append(chunk)
                continue
            first, *more = chunk.split(b"\n")
            self._parts.append(first)
            for piece in more:
                self._lines.append(b"".join(self._parts))
                self._parts = [piece]
        if last := b"".join(self._parts):
            yield last
            self._parts = []

    async def wait_until_quiet(self) -> None:
        """Wait after the end of the input, until no message has arrived for the ``--wait`` time.

        Only the application knows whether an answer will follow. Precedents: websocat closes immediately,
        and so prints no answer to "echo hello | websocat"; wscat has ``--wait``.
        """
        self._shown = time.monotonic()
        while (rest := self._shown + self._wait - time.monotonic()) > 0:  # noqa: ASYNC110  (usually a single iteration)
            await asyncio.sleep(rest)


class _Terminal(_Pipe):
    """An input line at the bottom of the terminal; received messages appear above it."""

    def __init__(self, form: Format, wait: float) -> None:
        super().__init__(form, wait)
        self._line = Line("> ")
        self._modes: list[Any] = []

    def __enter__(self) -> None:
        self._modes = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        _print("connected; Ctrl-D closes", DIM)
        self._write()

    def __exit__(self, *_exc: object) -> None:
        sys.stdout.write(ERASE)
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._modes)
        self._modes = []

    def show(self, message: str | bytes) -> None:
        shown = "\n  ".join(map(printable, self._form.text(message).split("\n")))
        self._write(f"{paint('<', BOLD)} {shown}\n")

    def note(self, text: str) -> None:
        if self._modes:
            self._write(f"{paint(text, DIM)}\n")
        else:
            super().note(text)

    async def messages(self) -> AsyncIterator[str | bytes]:
        async for keys in _chunks(sys.stdin.fileno()):
            for line in self._line.feed(keys):
                self._write(f"{self._line.prompt}{line}\n")
                try:
                    if line:
                        yield self._form.message(line.encode())
                except ValueError:
                    self.note(f"not sent: the line is not {self._form.wanted}")
            self._write()
            if self._line.ended:
                return

    def _write(self, above: str = "") -> None:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
        sys.stdout.write(ERASE + above + self._line.draw(columns))
        sys.stdout.flush()


async def _chunks(fd: int) -> AsyncIterator[bytes]:
    """Yield what can be read from ``fd``. Uses the loop, because a thread in read() cannot be stopped."""
    while True:
        await _readable(fd)
        try:
            chunk = os.read(fd, CHUNK)
        except OSError:
            return  # EIO: the terminal was closed
        if not chunk:
            return
        yield chunk


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(fd, ready.set)
    except PermissionError:
        return  # a regular file or /dev/null, which is always readable: epoll(7) does not support it
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _show_failure(failure: HandshakeError, what_next: str = "") -> None:
    _print(f"{failure}{what_next}", RED)
    if hint := certificate_hint(failure.ending.exception):
        _print(hint, DIM)
    if isinstance(failure, HandshakeRejected):
        _show_body(failure.response)


def _show_body(response: Response) -> None:
    """Print the start of an error response's body, which often contains the reason."""
    body = response.body.decode(errors="replace").strip()[:MAX_BODY]
    for line in body.splitlines():
        _print(f"  {printable(line)}", DIM)


def _print(text: str, style: str) -> None:
    # Standard output contains only messages.
    print(paint(text, style, sys.stderr), file=sys.stderr)
