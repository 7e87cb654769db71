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
    parser.set_defaults(run=run)


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
        server = _load(args.target)
        context = _context(args.certfile, args.keyfile)
    except ValueError as error:
        print(f"endwell serve: {error}", file=sys.stderr)
        return 2
    endings = EndingLog(handler, "endwell.serve" if args.workers is None else f"{os.getpid()} endwell.serve")
    if not args.no_ending_log:
        server.on_close(endings.ended)
    try:
        server.run(args.host, args.port, ssl=context, workers=args.workers)
    except SystemExit as exit_:
        if not isinstance(exit_.__cause__, OSError):
            raise
        cannot_listen("serve", format_address(args.host, args.port), exit_.__cause__)
        return 1
    finally:
        endings.flush()
    return 0


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"there is at least one worker, not {count}")
    return count


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
