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
from ...errors import HandshakeError, HandshakeRejected
from ...wire.authority import split_authority
from ..options import add_connection, certificate_hint, connection_keywords
from ..style import printable
from .find import Place, places_of
from .search import NOT_UNDERSTOOD, OPEN_TIME, NoAnswer, Target, first_answer
from .session import SUBPROTOCOL, Watch, ask_once, is_terminal
from .tables import report
from .view import View

__all__ = ["add", "run"]

#: Number of rows of each list that --once prints, unless --rows says it.
ROWS = 20
#: Seconds for which a server that does not answer delays the end of the command.
CLOSE_TIME = 1.0
#: Maximum bytes of an answer. Those of a dashboard are below: 200 rows, each with texts of limited length.
MAX_ANSWER = 64 << 20
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
        for target in targets:
            connect(target.url, **target.keywords)  # raises ValueError; only `await` and `async with` connect
    except ValueError as error:
        print(f"endwell top: {error}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_once(args, targets) if args.once else _watch(args, targets))
    except NoAnswer as error:
        for failure in error.failures:
            _tell_failure(str(failure), failure.error)
    except NOT_UNDERSTOOD:
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


def _targets(args: argparse.Namespace) -> Iterator[Target]:
    """The URLs of the feed to try, and how to connect. Raises ValueError."""
    keywords: ConnectKeywords = {
        **connection_keywords(args),
        "subprotocols": [SUBPROTOCOL],
        "compression": None,
        "max_size": MAX_ANSWER,
        "open_timeout": OPEN_TIME,
        "close_timeout": CLOSE_TIME,
    }
    if token := os.environ.get(TOKEN):
        keywords["additional_headers"] = [*_fields(keywords), ("Authorization", f"Bearer {token}")]
    if not (args.server.isascii() and args.server.isdigit()):
        yield Target(_feed_of(args.server), keywords)
        return
    for place in places_of(int(args.server)):
        yield from _targets_of(place, keywords)


def _fields(keywords: ConnectKeywords) -> list[Any]:
    return list(keywords.get("additional_headers") or ())  # type: ignore[arg-type]


def _targets_of(place: Place, keywords: ConnectKeywords) -> Iterator[Target]:
    local: ConnectKeywords = {**keywords, "proxy": None}
    if place.unix_path is not None:
        local["unix_path"] = place.unix_path
    # Whether a socket speaks TLS is not known before.
    for scheme in ("ws", "wss"):
        yield Target(f"{scheme}://{place.authority}/_endwell/feed", local)


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


async def _once(args: argparse.Namespace, targets: list[Target]) -> int:
    async def ask(target: Target) -> str:
        found = await ask_once(target.url, target.keywords, args.rows)
        if args.json:
            return json.dumps(found)
        lines = report(found["summary"], found["connections"], found["endings"])
        # Text of the server, too, must not control the terminal.
        return "\n".join(map(printable, lines))

    print((await first_answer(targets, ask))[1])
    return 0


async def _watch(args: argparse.Namespace, targets: list[Target]) -> int:
    async def open_feed(target: Target) -> None:
        async with connect(target.url, **target.keywords):
            pass

    # One target needs no search.
    found = targets[0] if len(targets) == 1 else (await first_answer(targets, open_feed))[0]
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    view = View(found.url.removesuffix("/feed"), ascii_only=encoding != "utf8")
    last = await Watch(found.url, found.keywords, view).run()
    if last is None:
        return 0
    _tell_failure(str(last), last)
    return 1


def _tell_failure(text: str, error: object) -> None:
    """Print the text of what has failed, and what the operator can do."""
    print(f"endwell top: {printable(text)}", file=sys.stderr)
    if isinstance(error, HandshakeRejected):
        status = error.response.status
        if status == 403:
            print("the dashboard refuses: see --header, and the variable ENDWELL_TOKEN", file=sys.stderr)
        elif status == 404:
            print(
                "there is no dashboard at this path: the server must call server.dashboard()", file=sys.stderr
            )
    elif isinstance(error, HandshakeError) and (hint := certificate_hint(error.ending.exception)):
        print(hint, file=sys.stderr)
