"""``endwell top``: the dashboard of a server in a terminal.

The argument is the URL of the server, such as https://example.com, or the ID of a process on this machine, whose
listening sockets are then tried. The server must have called Server.dashboard(). If its authorize function asks for a
bearer token, put the token into the environment variable ENDWELL_TOKEN, where other users cannot read it. The
keys are shown at the bottom of the screen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from ...client.connect import ConnectKeywords, connect
from ...errors import ConnectionClosed, HandshakeError, HandshakeRejected
from ...wire.authority import split_authority
from ..options import add_connection, certificate_hint, connection_keywords
from ..style import printable
from .find import Place, places_of
from .session import SUBPROTOCOL, Watch, ask_once, is_terminal
from .tables import report
from .view import View

__all__ = ["add", "run"]

#: Number of rows of each list that --once prints, unless --rows says it.
ROWS = 20
#: What a message of a server with another format may raise; RuntimeError includes RecursionError.
_NOT_UNDERSTOOD = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
#: The variable with the bearer token.
TOKEN = "ENDWELL_TOKEN"  # noqa: S105  (a name)


# argparse has no public name for the type.
def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "top", help="show the connections of a server and how they end", description=__doc__
    )
    parser.add_argument(
        "server",
        metavar="URL|PID",
        help="https://host:port, with the path of the dashboard if it is not /_endwell",
    )
    parser.add_argument("--once", action="store_true", help="print the present state and exit")
    parser.add_argument("--json", action="store_true", help="with --once: print one JSON object")
    parser.add_argument(
        "--rows",
        type=int,
        default=ROWS,
        metavar="N",
        help="with --once: number of connections and of endings, 1 to 200 (default: %(default)s)",
    )
    add_connection(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command. Returns 1 if the feed cannot be opened or ends, 2 for wrong arguments."""
    try:
        _check(args)
        targets = list(_targets(args))
        for url, keywords in targets:
            connect(url, **keywords)  # raises ValueError; only `await` and `async with` connect
    except ValueError as error:
        print(f"endwell top: {error}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_once(args, targets) if args.once else _watch(args, targets))
    except (HandshakeError, ConnectionClosed) as error:
        _tell_failure(error)
    except TimeoutError:
        print("endwell top: the server does not answer", file=sys.stderr)
    except _NOT_UNDERSTOOD:
        print(
            "endwell top: the server sends what this version of endwell does not understand", file=sys.stderr
        )
    return 1


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError if the arguments do not fit together."""
    if args.json and not args.once:
        raise ValueError("--json needs --once")
    if not 1 <= args.rows <= 200:
        raise ValueError("--rows must be from 1 to 200")
    if not args.once and not is_terminal():
        raise ValueError("standard input and output are no terminal; --once prints the present state")


def _targets(args: argparse.Namespace) -> Iterator[tuple[str, ConnectKeywords]]:
    """The URLs of the feed to try, and how to connect. Raises ValueError."""
    keywords: ConnectKeywords = {
        **connection_keywords(args),
        "subprotocols": [SUBPROTOCOL],
        "compression": None,
        "max_size": None,  # a large list is the answer to an ask
    }
    if token := os.environ.get(TOKEN):
        keywords["additional_headers"] = [*_fields(keywords), ("Authorization", f"Bearer {token}")]
    if not (args.server.isascii() and args.server.isdigit()):
        yield _feed_of(args.server), keywords
        return
    for place in places_of(int(args.server)):
        yield from _targets_of(place, keywords)


def _fields(keywords: ConnectKeywords) -> list[Any]:
    return list(keywords.get("additional_headers") or ())  # type: ignore[arg-type]


def _targets_of(place: Place, keywords: ConnectKeywords) -> Iterator[tuple[str, ConnectKeywords]]:
    local: ConnectKeywords = {**keywords, "proxy": None}
    if place.unix_path is not None:
        local["unix_path"] = place.unix_path
    # Whether a socket speaks TLS is not known before.
    for scheme in ("ws", "wss"):
        yield f"{scheme}://{place.authority}/_endwell/feed", local


def _feed_of(text: str) -> str:
    """The URL of the feed, from what the operator has typed. Raises ValueError."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "http", text
    if scheme.lower() not in _SCHEMES:
        raise ValueError(f"the URL of a server begins with http:// or https://, not {scheme + mark!r}")
    authority, target = split_authority(rest)
    path = target.partition("?")[0].rstrip("/") or "/_endwell"
    return f"{_SCHEMES[scheme.lower()]}://{authority}{path}/feed"


async def _once(args: argparse.Namespace, targets: list[tuple[str, ConnectKeywords]]) -> int:
    url, keywords = await _reachable(targets)
    found = await ask_once(url, keywords, args.rows)
    if args.json:
        print(json.dumps(found))
        return 0
    lines = report(found["summary"], found["connections"], found["endings"])
    # Text of the server, too, must not control the terminal.
    print("\n".join(map(printable, lines)))
    return 0


async def _watch(args: argparse.Namespace, targets: list[tuple[str, ConnectKeywords]]) -> int:
    url, keywords = await _reachable(targets)
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    view = View(url.removesuffix("/feed"), ascii_only=encoding != "utf8")
    last = await Watch(url, keywords, view).run()
    if last is None:
        return 0
    if isinstance(last, HandshakeError):
        _tell_failure(last)
    else:
        print(f"endwell top: {printable(str(last))}", file=sys.stderr)
    return 1


async def _reachable(targets: list[tuple[str, ConnectKeywords]]) -> tuple[str, ConnectKeywords]:
    """The first target with a feed. Raises the failure of the attempt that came furthest."""
    if len(targets) == 1:
        return targets[0]
    failures: list[HandshakeError] = []
    answered: set[tuple[str, Any]] = set()
    for url, keywords in targets:
        place = url.partition("://")[2], keywords.get("unix_path")
        if place in answered:  # it does not speak TLS: a server would log a malformed request
            continue
        try:
            async with connect(url, **keywords):
                return url, keywords
        except HandshakeError as error:
            failures.append(error)
            if isinstance(error, HandshakeRejected):
                answered.add(place)
    raise max(failures, key=_progress)


def _progress(failure: HandshakeError) -> int:
    """How far an attempt has come: to an answer of a server, to its certificate, or less far."""
    if isinstance(failure, HandshakeRejected):
        return 2
    return int(bool(certificate_hint(failure.ending.exception)))


def _tell_failure(error: HandshakeError | ConnectionClosed) -> None:
    print(f"endwell top: {printable(str(error))}", file=sys.stderr)
    if isinstance(error, HandshakeRejected):
        status = error.response.status
        if status == 403:
            print("the dashboard refuses: see --header, and the variable ENDWELL_TOKEN", file=sys.stderr)
        elif status == 404:
            print(
                "there is no dashboard at this path: the server must call server.dashboard()", file=sys.stderr
            )
    elif hint := certificate_hint(error.ending.exception):
        print(hint, file=sys.stderr)
