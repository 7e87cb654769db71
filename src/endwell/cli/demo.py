"""``endwell demo``: a chat that shows how each connection ends, in a browser or as a script."""

from __future__ import annotations

import _socket
import argparse
import asyncio
import errno
import logging
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from ..aio.bind import bind
from ..aio.websocket import WebSocket
from ..ending import Close, Ending
from ..server.drain.timetable import Drain
from ..server.process.options import ProcessOptions
from ..server.process.worker import worker_number
from ..server.run import run as serve
from ..wire.authority import join_authority
from . import script
from .address import DEFAULT_HOST, add_address, cannot_listen, positive, refuse_together
from .chat import Chat, user_name
from .style import BOLD, DIM, GREEN, RED, paint, printable

__all__ = ["add", "run"]

#: The ports that are tried in order without --port, because 8080 is often in use, and no client depends on
#: the port of a demo. Precedent: Vite and Jupyter.
PORTS = range(8080, 8090)

#: ``ping_interval`` and ``ping_timeout`` in seconds: short, because a user waits for the result.
PING = 5.0
#: Maximum bytes of a message. The page has a button that sends a larger one.
MAX_SIZE = 2**14
#: Seconds until the drain deadline when the demo stops.
GRACE = 3.0


# argparse has no public name for the type.
def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "demo", help="a chat in the browser that shows how each connection ends", description=__doc__
    )
    add_address(parser, f"default: {PORTS[0]}, or the next free port")
    parser.add_argument(
        "--script",
        action="store_true",
        help="end connections in eleven ways, without a browser, and check each Ending",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="worker processes; the page shows which one serves each tab",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, or run the script.

    Returns 1 if it cannot listen, or if an Ending was wrong; 2 for wrong arguments.
    """
    try:
        refuse_together(args, "--script", ("--host", "--port", "--workers"))
    except ValueError as error:
        print(f"endwell demo: {error}", file=sys.stderr)
        return 2
    if args.script:
        return script.run(verbose=bool(args.verbose))
    handler = logging.StreamHandler()
    if not args.verbose:
        handler.setFormatter(_Brief())
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if args.verbose else logging.WARNING)
    host = DEFAULT_HOST if args.host is None else args.host
    ports = PORTS if args.port is None else [args.port]
    if args.workers is not None:
        return _serve_with_workers(host, ports, args.workers)
    return asyncio.run(_serve(host, ports))


def _chat(worker: int | None = None) -> Chat:
    chat = Chat(worker, ping_interval=PING, ping_timeout=PING, max_size=MAX_SIZE)
    chat.server.on_close(_show)
    return chat


def _serve_with_workers(host: str, ports: Sequence[int], workers: int) -> int:
    """Serve in worker processes, each of which runs this command again, until Ctrl-C."""

    def listen() -> list[_socket.socket]:  # in the supervisor
        for port in ports:
            try:
                socks = bind(host, port, None)
            except OSError as error:
                if _tries_next(error, port, ports):
                    continue
                cannot_listen("demo", join_authority(host, port), error)
                raise SystemExit(1) from error
            _welcome(join_authority(host, socks[0].getsockname()[1]))
            return socks
        raise AssertionError

    options = ProcessOptions(drain=Drain(deadline=GRACE), workers=workers)
    serve(_chat(worker_number()).server, listen, None, options)
    return 0


async def _serve(host: str, ports: Sequence[int]) -> int:
    chat = _chat()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    # Ctrl-C cancels this task; the end of the block stops the server.
    with suppress(asyncio.CancelledError):
        async with AsyncExitStack() as stack:
            try:
                await _listen(stack, chat, host, ports)
            except OSError as error:
                cannot_listen("demo", join_authority(host, ports[-1]), error)
                return 1
            _welcome(join_authority(host, chat.server.port))
            try:
                await asyncio.Event().wait()
            finally:
                print("\nstopping: every connection is closed with 1001", flush=True)
    return 0


async def _listen(stack: AsyncExitStack, chat: Chat, host: str, ports: Sequence[int]) -> None:
    """Serve on the first free port of ``ports``; raises OSError if none is free."""
    for port in ports:
        try:
            await stack.enter_async_context(chat.server.serving(host, port, grace=GRACE))
        except OSError as error:
            if not _tries_next(error, port, ports):
                raise
        else:
            return


def _tries_next(error: OSError, port: int, ports: Sequence[int]) -> bool:
    """Whether ``error`` says that ``port`` is in use, and another one follows; says so."""
    if error.errno != errno.EADDRINUSE or port == ports[-1]:
        return False
    print(f"port {port} is in use, trying the next one")
    return True


def _welcome(address: str) -> None:
    # After `make demo`, the command is in no folder of the PATH.
    is_script = Path(sys.argv[0]).name == "endwell" and shutil.which("endwell") is None
    command = sys.argv[0] if is_script else "endwell"
    print(
        f"open {paint(f'http://{address}/', BOLD)} in some tabs, or run: {command} connect ws://{address}/chat/lobby"
    )
    print(paint("every ending appears here and on the page; Ctrl-C stops the server", DIM), flush=True)


def _show(ws: WebSocket, ending: Ending) -> None:
    if "room" in ws.request.params:
        print(_line(ws, ending), flush=True)


def _line(ws: WebSocket, ending: Ending) -> str:
    name = f"{user_name(ws)} in {printable(ws.request.params['room'])}"
    sentence = paint(str(ending), GREEN if ending.ok else RED)
    details = (
        f"{ending.cause.value}, by {ending.initiator.value}, received {_code(ending.received)}, "
        f"sent {_code(ending.sent)}, tcp {ending.tcp.value}"
    )
    return f"{paint(time.strftime('%H:%M:%S'), DIM)} {name}: {sentence} {paint(f'[{details}]', DIM)}"


def _code(close: Close | None) -> str:
    if close is None:
        return "no Close"
    return "no code" if close.code is None else str(close.code)


class _Brief(logging.Formatter):
    """Formats log records without tracebacks, which would hide the demo's own output."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name)
        return f"{type(ei[1]).__name__}: {ei[1]}"
