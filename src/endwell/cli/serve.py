"""``endwell serve``: run the Server, or the ASGI application, of a file or a module."""

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
from ..server.drain.timetable import Drain, DrainKeywords
from ..wire.authority import join_authority
from .address import DEFAULT_HOST, add_address, cannot_listen, refuse_together, unix_path
from .endings import EndingLog

__all__ = ["add", "run"]

DEFAULT_PORT = 8080


# argparse has no public name for the type.
def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "serve", help="run the Server or ASGI application of a file or a module", description=__doc__
    )
    parser.add_argument(
        "target", metavar="FILE_OR_MODULE:ATTR", help="such as app.py:server or package.module:app"
    )
    add_address(parser, f"default: {DEFAULT_PORT}; 0: any free port")
    parser.add_argument(
        "--unix", metavar="PATH", help="listen on this Unix socket instead of TCP; @NAME: an abstract socket"
    )
    parser.add_argument(
        "--unix-mode",
        type=_mode,
        metavar="MODE",
        help="permission bits of the socket's file in octal, such as 660",
    )
    parser.add_argument(
        "--certfile", metavar="FILE", help="PEM file with the certificate chain: serve wss and https"
    )
    parser.add_argument(
        "--keyfile", metavar="FILE", help="PEM file with the private key, unless --certfile contains it"
    )
    parser.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="number of worker processes; SIGHUP replaces them without downtime",
    )
    parser.add_argument(
        "--log-level",
        type=str.lower,
        choices=("debug", "info", "warning", "error", "critical"),
        help="the lowest level that is logged, in any case (default: info; debug with -v)",
    )
    parser.add_argument(
        "--no-ending-log", action="store_true", help="do not log a line for each connection that ends"
    )
    _add_drain(parser)
    parser.set_defaults(run=run)


def _add_drain(parser: argparse.ArgumentParser) -> None:
    drain = parser.add_argument_group("drain", "how the server stops: the fields of endwell.Drain")
    default = Drain()
    drain.add_argument(
        "--drain-window",
        type=float,
        metavar="SECONDS",
        help=f"time over which closings are spread, at most 2/5 of the deadline (default: {default.window:g})",
    )
    drain.add_argument(
        "--drain-deadline",
        type=float,
        metavar="SECONDS",
        help=f"maximum time of the drain (default: {default.deadline:g})",
    )
    drain.add_argument("--drain-code", type=int, metavar="N", help=f"close code (default: {default.code:d})")
    drain.add_argument(
        "--drain-reason",
        metavar="TEXT",
        help="text of the close reason, before the retry advice (default: the meaning of the code)",
    )
    drain.add_argument(
        "--drain-rate",
        type=_rate,
        default=argparse.SUPPRESS,
        metavar="N",
        help=f"maximum clients that reconnect per second; 'none': no retry advice (default: {default.rate:g})",
    )
    drain.add_argument(
        "--drain-no-listen",
        dest="drain_listen",
        action="store_const",
        const=False,
        help="stop listening immediately, instead of refusing new connections with 503 during the drain",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Returns 2 for wrong arguments, 1 if the server cannot listen."""
    host = DEFAULT_HOST if args.host is None else args.host
    port = DEFAULT_PORT if args.port is None else args.port
    level = args.log_level or ("debug" if args.verbose else "info")
    who = "" if args.workers is None else "%(process)d "
    handler = logging.StreamHandler()
    logging.basicConfig(
        handlers=[handler],
        level=level.upper(),
        format=f"%(asctime)s %(levelname)-7s {who}%(name)s: %(message)s",
    )
    try:
        _refuse_contradictions(args)
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
            host,
            port,
            ssl=context,
            unix_path=path,
            unix_mode=args.unix_mode,
            drain=drain,
            workers=args.workers,
        )
    except SystemExit as exit_:
        if not isinstance(exit_.__cause__, OSError):
            raise
        where = join_authority(host, port) if args.unix is None else args.unix
        cannot_listen("serve", where, exit_.__cause__, port=args.unix is None)
        return 1
    finally:
        endings.flush()
    return 0


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {count}")
    return count


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise argparse.ArgumentTypeError(f"permission bits are octal, such as 660, not {text!r}")
    return mode


def _refuse_contradictions(args: argparse.Namespace) -> None:
    """Raise ValueError if an option would be ignored because of another one."""
    refuse_together(args, "--unix", ("--host", "--port"))
    if args.log_level and args.verbose:
        raise ValueError("--log-level and -v exclude each other")


def _unix_path(args: argparse.Namespace) -> str | None:
    """Raises ValueError."""
    path: str | None = args.unix
    if path is None:
        if args.unix_mode is not None:
            raise ValueError("--unix-mode needs --unix")
        return None
    if path.startswith("@") and args.unix_mode is not None:
        raise ValueError(f"--unix-mode needs a file, and the abstract socket {path} has none")
    return unix_path(path)


def _rate(text: str) -> float | None:
    return None if text == "none" else float(text)


def _drain(args: argparse.Namespace) -> Drain:
    """Convert the drain arguments. Raises ValueError if one is wrong."""
    given = {name: getattr(args, f"drain_{name}", None) for name in DrainKeywords.__optional_keys__}
    keywords: DrainKeywords = {name: value for name, value in given.items() if value is not None}  # type: ignore[assignment]
    if hasattr(args, "drain_rate"):
        keywords["rate"] = args.drain_rate
    return Drain(**keywords)


def _load(target: str) -> Server:
    """Import the Server that ``FILE_OR_MODULE:ATTR`` names. An ASGI or WSGI application gets a Server of its own.

    Raises ValueError if there is neither. Exceptions of the imported code propagate.
    """
    name, colon, attribute = target.rpartition(":")
    if not (name and colon and attribute):
        raise ValueError(f"{target!r} is not FILE_OR_MODULE:ATTR, such as app.py:server")
    module = _import_file(Path(name)) if name.endswith(".py") or os.sep in name else _import(name)
    if not hasattr(module, attribute):
        found = [key for key, value in vars(module).items() if isinstance(value, Server)]
        hint = f"; its Server is called {', '.join(found)}" if found else ""
        raise ValueError(f"{name} has no attribute {attribute!r}{hint}")
    value = getattr(module, attribute)
    if isinstance(value, Server):
        return value
    server = Server()
    try:
        server.mount("/", value)
    except TypeError:
        kind = type(value).__name__
        raise ValueError(
            f"{attribute!r} of {name} is of type {kind}, neither a Server nor an ASGI application"
        ) from None
    except ImportError as error:
        raise ValueError(str(error)) from None
    return server


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    # As "python FILE" does.
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look up the module by its name.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    # As "python -m MODULE" does.
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # If the module exists, but imports a missing one, show the traceback.
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
    except OSError as error:  # ssl.SSLError, for a file with other contents, is an OSError, too
        raise ValueError(f"cannot use {certfile!r}: {error}") from None
    return context
