"""``endwell serve``: run the Server or the ASGI application of a file or a module."""

# size: the arguments, and what they become, are one list.
from __future__ import annotations

import argparse
import logging
import os
import sys
from functools import partial
from typing import Any

from ..aio import ending_log
from ..aio.bind import adopt, bind, format_address
from ..options import Options
from ..rooms.rooms import choose_bus
from ..server.app import Server
from ..server.drain.timetable import Drain, DrainKeywords
from ..server.process.options import ProcessOptions, ReloadOptions
from ..server.process.reload import check_installed
from ..server.process.worker import is_worker
from ..server.run import Listen, supervise
from ..server.run import run as run_server
from ..wire.authority import join_authority, parse_authority
from .address import DEFAULT_HOST, add_address, cannot_listen, positive, refuse_together, unix_path
from .bus import add_bus, check_bus
from .lines import AccessLog, EndingLog, Lines
from .options import number
from .settings import configure_logging, load_environment, server_context
from .switches import OPTION_ARGUMENTS, add_aliases, add_options, naming, options_of
from .target import TargetError, load

__all__ = ["add", "run"]

DEFAULT_PORT = 8080
#: Seconds until the drain deadline of a worker that is replaced because a file has changed.
RELOAD_DEADLINE = 5.0


# argparse has no public name for the type.
def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "serve", help="run the Server or the ASGI application of a file or a module", description=__doc__
    )
    _add_target(parser)
    add_address(parser, f"default: {DEFAULT_PORT}; 0: any free port")
    parser.add_argument(
        "--fd",
        type=int,
        metavar="N",
        help="listen on the socket with this descriptor, which a parent has opened",
    )
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
        "--workers",
        type=positive,
        metavar="N",
        help="number of worker processes; SIGHUP replaces them without downtime (default: $WEB_CONCURRENCY)",
    )
    parser.add_argument(
        "--limit-max-requests",
        type=positive,
        metavar="N",
        help="replace a worker without downtime after this number of requests (without --workers: there is one)",
    )
    parser.add_argument(
        "--limit-max-requests-jitter",
        type=int,
        default=0,
        metavar="N",
        help="add a random number up to N to --limit-max-requests, so that workers are not replaced together",
    )
    _add_metrics(parser)
    add_bus(parser)
    _add_reload(parser)
    _add_log(parser)
    _add_tls(parser)
    add_options(parser)
    _add_drain(parser)
    add_aliases(parser)
    parser.set_defaults(run=run)


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics-port",
        type=_metrics_address,
        metavar="[HOST:]PORT",
        help="serve metrics for Prometheus on this port, at /metrics (default of HOST: 127.0.0.1)",
    )


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="FILE_OR_MODULE:ATTR", help="such as app.py:server or package.module:app"
    )
    parser.add_argument(
        "--app-dir", metavar="DIR", help="look up the module in this folder (default: the current one)"
    )
    parser.add_argument(
        "--factory", action="store_true", help="ATTR is a function that returns the Server or the application"
    )
    parser.add_argument(
        "--env-file",
        metavar="FILE",
        help="set the environment variables of this file first, unless they are set",
    )
    application = parser.add_argument_group("only for an ASGI application")
    application.add_argument(
        "--root-path",
        metavar="PATH",
        help="the path below which a proxy offers the application, if the proxy removes it from the requests",
    )
    application.add_argument(
        "--lifespan",
        choices=("auto", "on", "off"),
        help="whether the application gets the events of its startup and shutdown (default: auto: if it "
        "supports them)",
    )


def _add_reload(parser: argparse.ArgumentParser) -> None:
    reload = parser.add_argument_group("reload", "for development; needs the package watchfiles")
    reload.add_argument(
        "--reload", action="store_true", help="replace the worker without downtime when a file changes"
    )
    reload.add_argument(
        "--reload-dir",
        action="append",
        metavar="DIR",
        help="a folder to watch, with the folders in it (repeatable; default: the current one)",
    )
    for word, help_ in (
        ("include", "watch files with this name, such as '*.html', besides *.py (repeatable)"),
        ("exclude", "do not watch files with this name (repeatable)"),
    ):
        reload.add_argument(f"--reload-{word}", action="append", metavar="GLOB", help=help_)


def _add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log-level",
        type=str.lower,
        choices=("debug", "info", "warning", "error", "critical"),
        help="the lowest level that is logged, in any case (default: info; debug with -v)",
    )
    parser.add_argument(
        "--log-config",
        metavar="FILE",
        help="configure logging by this file: .json, .toml or .yaml for logging.config.dictConfig(), others for "
        "fileConfig()",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        help="json: each record is a line with a JSON object, which has the fields of endings (default: text)",
    )
    parser.add_argument(
        "--no-ending-log", action="store_true", help="do not log a line for each connection that ends"
    )
    parser.add_argument(
        "--no-access-log", action="store_true", help="do not log a line for each HTTP request and WebSocket"
    )


def _add_tls(parser: argparse.ArgumentParser) -> None:
    tls = parser.add_argument_group("TLS")
    tls.add_argument(
        "--certfile", metavar="FILE", help="PEM file with the certificate chain: serve wss and https"
    )
    tls.add_argument(
        "--keyfile", metavar="FILE", help="PEM file with the private key, unless --certfile contains it"
    )
    tls.add_argument("--keyfile-password", metavar="TEXT", help="the password of the private key")
    tls.add_argument(
        "--cafile",
        metavar="FILE",
        help="require a certificate of the client, signed by an authority in this PEM file",
    )
    tls.add_argument(
        "--cert-reqs",
        type=int,
        choices=(0, 1, 2),
        help="0: ask for no certificate of the client; 1: it is optional; 2: it is required (default with --cafile)",
    )
    tls.add_argument(
        "--ciphers",
        metavar="LIST",
        help="cipher suites of TLS 1.2, as OpenSSL writes them (default: Python's)",
    )


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
        type=number(float),
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
    """Serve until SIGINT or SIGTERM.

    Returns 2 for wrong arguments, 1 if the server cannot listen. Raises SystemExit with the status 3 if the
    application cannot start.
    """
    handler = logging.StreamHandler()
    server = None
    try:
        load_environment(args.env_file)
        _refuse_contradictions(args)
        options = _process_options(args)
        who = "" if options.workers is None else "%(process)d "
        configure_logging(args, handler, who)
        listen, where = _place(args)
        context = server_context(args)
        check_bus(args.bus)
    except ValueError as error:
        return _usage_error(error)
    try:
        # A supervisor that reloads does not import the application, because that may fail now and not later.
        if options.reload is None or is_worker():
            server = _server(args)
    except TargetError as error:  # another ValueError is one of the application, and needs its traceback
        return _usage_error(error)
    plain = None if args.log_format == "json" else handler
    lines = Lines(plain, "" if options.workers is None else f"{os.getpid()} ")
    try:
        if server is None:
            supervise(listen, options)
        else:
            ending_log.write_with(_nothing if args.no_ending_log else EndingLog(lines).write)
            run_server(
                server, listen, context, options, None if args.no_access_log else AccessLog(lines).answered
            )
    except SystemExit as exit_:
        if not isinstance(exit_.__cause__, OSError):
            raise
        # It may be the address of a page that has its own port.
        name = exit_.__cause__.filename
        address = where if name is None else format_address(name)
        hint = address == where and args.unix is None and args.fd is None
        cannot_listen("serve", address, exit_.__cause__, port=hint)
        return 1
    finally:
        lines.flush()
        ending_log.write_with(None)
    return 0


def _nothing(*_: object) -> None:
    """Write no ending."""


def _usage_error(error: ValueError) -> int:
    print(f"endwell serve: {error}", file=sys.stderr)
    return 2


def _process_options(args: argparse.Namespace) -> ProcessOptions:
    """Raises ValueError."""
    return ProcessOptions(
        drain=_drain(args),
        workers=_workers(args),
        inherited=args.fd is not None,
        max_requests=args.limit_max_requests,
        max_requests_jitter=max(0, args.limit_max_requests_jitter),
        reload=_reload(args),
    )


def _reload(args: argparse.Namespace) -> ReloadOptions | None:
    """Raises ValueError."""
    if not args.reload:
        for word in ("dir", "include", "exclude"):
            if getattr(args, f"reload_{word}"):
                raise ValueError(f"--reload-{word} needs --reload")
        return None
    check_installed()
    folders = args.reload_dir or [args.app_dir or "."]
    if not args.reload_dir and (found := os.path.dirname(args.target.rpartition(":")[0])):
        folders.append(found)
    for folder in folders:
        if not os.path.isdir(folder):
            raise ValueError(f"there is no folder {folder!r}")
    return ReloadOptions(
        folders=folders, include=["*.py", *(args.reload_include or ())], exclude=args.reload_exclude or ()
    )


def _place(args: argparse.Namespace) -> tuple[Listen, str]:
    """A function that opens the listening sockets, and their address as text. Raises ValueError."""
    if args.fd is not None:
        return partial(adopt, args.fd), f"descriptor {args.fd}"
    path = _unix_path(args)
    host = DEFAULT_HOST if args.host is None else args.host
    port = DEFAULT_PORT if args.port is None else args.port
    return partial(bind, host, port, path, args.unix_mode), args.unix or join_authority(host, port)


def _server(args: argparse.Namespace) -> Server:
    """Import the Server, or make one for the application.

    Raises TargetError if there is none, or if it does not fit the arguments.
    """
    found = load(args.target, args.app_dir, factory=args.factory)
    try:
        return _configured(found, args)
    except ValueError as error:
        raise TargetError(str(error)) from None


def _configured(found: Any, args: argparse.Namespace) -> Server:
    application = not isinstance(found, Server)
    options = options_of(args, application=application)
    server = found if isinstance(found, Server) else Server(_replace(Options(), options), bus=args.bus)
    if args.metrics_port is not None:
        host, port = args.metrics_port
        # To all who reach the port, because clients of the application do not.
        server.metrics_page(host=host, port=port, allow=None)
    if isinstance(found, Server):
        if args.bus:
            choose_bus(found.rooms, args.bus)
        for option in ("root_path", "lifespan"):
            if getattr(args, option) is not None:
                raise ValueError(f"--{option.replace('_', '-')} is for an ASGI application, not for a Server")
        found.options = _replace(found.options, options)
        return found
    server.mount("/", found, lifespan=args.lifespan or "auto", root_path=args.root_path or "/")
    return server


def _metrics_address(text: str) -> tuple[str, int]:
    """The address of --metrics-port."""
    host, port = DEFAULT_HOST, None
    if text.isdigit():
        text = f"{DEFAULT_HOST}:{text}"
    try:
        host, port = parse_authority(text)
    except ValueError:
        pass
    if not port:
        raise argparse.ArgumentTypeError(f"must be a port, or HOST:PORT, not {text!r}")
    return host, port


def _replace(options: Options, changes: dict[str, Any]) -> Options:
    with naming(OPTION_ARGUMENTS):
        return options.replace(**changes)


def _workers(args: argparse.Namespace) -> int | None:
    """The number of worker processes. Raises ValueError."""
    if args.reload:
        return 1
    if args.workers is not None:
        workers: int = args.workers
        return workers
    # Only a supervisor can replace a worker.
    default = None if args.limit_max_requests is None else 1
    text = os.environ.get("WEB_CONCURRENCY")
    if not text:
        return default
    try:
        count = positive(text)
    except argparse.ArgumentTypeError:
        raise ValueError(f"WEB_CONCURRENCY must be a positive number, not {text!r}") from None
    # It is often set for all programs of a platform. One worker would only add its supervisor.
    return default if count == 1 else count


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
    refuse_together(args, "--reload", ("--workers", "--limit-max-requests"))
    refuse_together(args, "--fd", ("--host", "--port", "--unix"))
    refuse_together(args, "--log-config", ("--log-format",))
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


def _drain(args: argparse.Namespace) -> Drain:
    """Convert the drain arguments. Raises ValueError if one is wrong."""
    names = {name: f"--drain-{name}" for name in DrainKeywords.__optional_keys__}
    given = {name: getattr(args, f"drain_{name}", None) for name in names}
    keywords: DrainKeywords = {name: value for name, value in given.items() if value is not None}  # type: ignore[assignment]
    if args.reload:
        # A developer waits for the new code, and there are few clients.
        keywords = {"window": 0.0, "deadline": RELOAD_DEADLINE, **keywords}
    if hasattr(args, "drain_rate"):
        keywords["rate"] = args.drain_rate
    with naming(names):
        return Drain(**keywords)
