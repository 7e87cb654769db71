"""``endwell serve``: run the Server of a file or a module."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import ssl
import sys
from pathlib import Path
from types import ModuleType

from ..server.app import Server
from ..server.timetable import Drain, DrainKeywords
from .address import add_address, cannot_listen, format_address
from .endings import EndingLog

__all__ = ["add", "run"]


# argparse has no public name for the type.
def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("serve", help="run the Server of a file or a module", description=__doc__)
    parser.add_argument(
        "target", metavar="FILE_OR_MODULE:ATTR", help="such as app.py:server or package.module:server"
    )
    add_address(parser, 8080, "default: %(default)s; 0: any that is free")
    parser.add_argument(
        "--unix", metavar="PATH", help="listen on this Unix socket instead; @NAME: an abstract one"
    )
    parser.add_argument(
        "--unix-mode", type=_mode, metavar="MODE", help="permission bits of its file in octal, such as 660"
    )
    parser.add_argument("--certfile", help="certificate chain, PEM: serve wss and https")
    parser.add_argument("--keyfile", help="its private key, unless it is in the same file")
    parser.add_argument(
        "--workers", type=_count, metavar="N", help="so many processes on the one port; SIGHUP renews them"
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error", "critical"),
        help="the least that is logged (default: info; with -v debug)",
    )
    parser.add_argument(
        "--no-ending-log", action="store_true", help="log no line for each connection that ends"
    )
    _add_drain(parser)
    parser.set_defaults(run=run)


def _add_drain(parser: argparse.ArgumentParser) -> None:
    drain = parser.add_argument_group("drain", "how it stops: the fields of endwell.Drain")
    default = Drain()
    drain.add_argument(
        "--drain-window",
        type=float,
        metavar="SECONDS",
        help=f"the closings are spread over it, at most 2/5 of the deadline (default: {default.window:g})",
    )
    drain.add_argument(
        "--drain-deadline",
        type=float,
        metavar="SECONDS",
        help=f"all is over then, at the latest (default: {default.deadline:g})",
    )
    drain.add_argument("--drain-code", type=int, metavar="N", help=f"close code (default: {default.code:d})")
    drain.add_argument(
        "--drain-reason",
        metavar="TEXT",
        help="before the advice when to come back (default: what the code means)",
    )
    drain.add_argument(
        "--drain-rate",
        type=_rate,
        default=argparse.SUPPRESS,
        metavar="N",
        help=f"clients that come back in a second, at most; 'none': no advice (default: {default.rate:g})",
    )
    drain.add_argument(
        "--drain-no-listen",
        dest="drain_listen",
        action="store_const",
        const=False,
        help="stop listening at once, instead of refusing newcomers with 503 meanwhile",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Returns 2 if there is no such Server, 1 if it cannot listen."""
    level = args.log_level or ("debug" if args.verbose else "info")
    who = "" if args.workers is None else "%(process)d "
    handler = logging.StreamHandler()
    logging.basicConfig(
        handlers=[handler],
        level=level.upper(),
        format=f"%(asctime)s %(levelname)-7s {who}%(name)s: %(message)s",
    )
    try:
        drain = _drain(args)
        path = _unix_path(args)
        context = _context(args.certfile, args.keyfile)
        server = _load(args.target)
    except ValueError as error:
        print(f"endwell serve: {error}", file=sys.stderr)
        return 2
    endings = EndingLog(handler, "endwell.serve" if args.workers is None else f"{os.getpid()} endwell.serve")
    if not args.no_ending_log:
        server.on_close(endings.ended)
    try:
        server.run(
            args.host,
            args.port,
            ssl=context,
            unix_path=path,
            unix_mode=args.unix_mode,
            drain=drain,
            workers=args.workers,
        )
    except SystemExit as exit_:
        if not isinstance(exit_.__cause__, OSError):
            raise
        where = format_address(args.host, args.port) if args.unix is None else args.unix
        cannot_listen("serve", where, exit_.__cause__, port=args.unix is None)
        return 1
    finally:
        endings.flush()
    return 0


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"there is at least one worker, not {count}")
    return count


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise argparse.ArgumentTypeError(f"permission bits are octal, such as 660, not {text!r}")
    return mode


def _unix_path(args: argparse.Namespace) -> str | None:
    """Raises ValueError."""
    path: str | None = args.unix
    if path is None:
        if args.unix_mode is not None:
            raise ValueError("--unix-mode needs --unix")
        return None
    return f"\0{path[1:]}" if path.startswith("@") else path


def _rate(text: str) -> float | None:
    return None if text == "none" else float(text)


def _drain(args: argparse.Namespace) -> Drain:
    """How it stops. Raises ValueError."""
    given = {name: getattr(args, f"drain_{name}", None) for name in DrainKeywords.__optional_keys__}
    keywords: DrainKeywords = {name: value for name, value in given.items() if value is not None}  # type: ignore[assignment]
    if hasattr(args, "drain_rate"):
        keywords["rate"] = args.drain_rate
    return Drain(**keywords)


def _load(target: str) -> Server:
    """The Server that ``FILE_OR_MODULE:ATTR`` names. Raises ValueError; what the code itself raises passes."""
    name, colon, attribute = target.rpartition(":")
    if not (name and colon and attribute):
        raise ValueError(f"{target!r} is not FILE_OR_MODULE:ATTR, such as app.py:server")
    module = _import_file(Path(name)) if name.endswith(".py") or os.sep in name else _import(name)
    if not hasattr(module, attribute):
        found = [key for key, value in vars(module).items() if isinstance(value, Server)]
        hint = f"; its Server is called {', '.join(found)}" if found else ""
        raise ValueError(f"{name} has no attribute {attribute!r}{hint}")
    server = getattr(module, attribute)
    if not isinstance(server, Server):
        kind = type(server).__name__
        raise ValueError(f"{attribute!r} of {name} is of type {kind}, not a Server")  # noqa: TRY004  (a wrong argument)
    return server


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    # As "python FILE" has it.
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by its name.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    # As "python -m MODULE" has it.
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that is there, but misses another one, is the traceback's to tell.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"there is no module {error.name!r}") from None


def _context(certfile: str | None, keyfile: str | None) -> ssl.SSLContext | None:
    if certfile is None:
        if keyfile is not None:
            raise ValueError("--keyfile needs --certfile")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except OSError as error:  # also what OpenSSL says about a file that holds something else
        raise ValueError(f"cannot use {certfile!r}: {error}") from None
    return context
