"""The arguments of ``endwell serve`` that become options of the server, and the words of uvicorn for arguments."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from .options import number

__all__ = ["OPTION_ARGUMENTS", "add_aliases", "add_options", "naming", "options_of"]

#: The proxies that are trusted for an application without --forwarded-allow-ips. Precedent: uvicorn.
LOCAL_PROXIES = ("127.0.0.1", "::1")

#: Arguments with a number: their option, its type, and the unit.
_NUMBERS: dict[str, tuple[str, type[int | float], str]] = {
    "--limit-concurrency": ("max_connections", int, "N"),
    "--timeout-keep-alive": ("keep_alive_timeout", float, "SECONDS"),
    "--ws-max-size": ("max_size", int, "BYTES"),
    "--ws-max-queue": ("max_queue", int, "N"),
    "--ws-ping-interval": ("ping_interval", float, "SECONDS"),
    "--ws-ping-timeout": ("ping_timeout", float, "SECONDS"),
}
#: The argument of each option that has one.
OPTION_ARGUMENTS = {
    **{option: name for name, (option, _, _) in _NUMBERS.items()},
    "origins": "--origin",
    "recorder": "--recorder",
    "proxy_headers": "--forwarded-allow-ips",
}
#: uvicorn's words for arguments that have another word here.
_ALIASES = {
    "--uds": "--unix",
    "--ssl-certfile": "--certfile",
    "--ssl-keyfile": "--keyfile",
    "--ssl-keyfile-password": "--keyfile-password",
    "--ssl-ca-certs": "--cafile",
    "--ssl-cert-reqs": "--cert-reqs",
    "--ssl-ciphers": "--ciphers",
    "--timeout-graceful-shutdown": "--drain-deadline",
}
#: uvicorn's arguments that have no equivalent: why, or what to use.
_OTHER = {
    "--loop": "uvloop is used if it is installed",
    "--http": "there is one HTTP implementation",
    "--http2": "HTTP/2 is not supported; a proxy in front of endwell can offer it",
    "--ws": "there is one WebSocket implementation",
    "--interface": "ASGI 3, ASGI 2 and WSGI applications are recognised",
    "--header": "the application adds header fields to its responses, for example in a middleware",
    "--server-header": "the server adds the field Server unless the application has set it",
    "--no-server-header": "the server adds the field Server unless the application has set it",
    "--date-header": "the server adds the field Date unless the application has set it",
    "--no-date-header": "RFC 9110 §6.6.1 requires the field Date",
    "--use-colors": "--log-config can name a formatter with colours",
    "--no-use-colors": "the log has no colours",
    "--access-log-format": "--log-config can name a formatter for the logger endwell.access",
    "--backlog": "the system limits it, on Linux by net.core.somaxconn",
    "--reload-delay": "changes within 50 ms belong together",
    "--ssl-version": "TLS 1.2 and later are accepted; a program can pass any context to Server.run()",
    "--h11-max-incomplete-event-size": "a Server has the options max_head and max_line",
    "--timeout-worker-healthcheck": "a worker whose event loop is blocked is killed at the end of the drain",
    "--reset-contextvars": "each request runs in a copy of the context of the startup",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that become options of the server."""
    group = parser.add_argument_group(
        "options of the server", "fields of endwell.Options, with uvicorn's words; 'none' disables a limit"
    )
    for name, (option, kind, unit) in _NUMBERS.items():
        group.add_argument(
            name, type=number(kind), default=argparse.SUPPRESS, metavar=unit, help=f"the option {option}"
        )
    group.add_argument(
        "--ws-per-message-deflate",
        type=_truth,
        default=True,
        metavar="true|false",
        help="compress messages if the client offers it (default: true)",
    )
    group.add_argument(
        "--origin",
        action="append",
        metavar="ORIGIN",
        help="accept WebSockets from pages of this origin, such as https://example.com (repeatable); '*': of any "
        "(default: only the origin that the request is for)",
    )
    group.add_argument(
        "--recorder",
        metavar="DIRECTORY",
        help="write each abnormal ending, with the last cues of its connection, to a file in this directory; endwell "
        "replay reads it",
    )
    group.add_argument(
        "--proxy-headers",
        action=argparse.BooleanOptionalAction,
        help="whether to believe what proxies say in X-Forwarded-... and Forwarded (default for an application: "
        "true)",
    )
    group.add_argument(
        "--forwarded-allow-ips",
        metavar="LIST",
        help="addresses and networks of the proxies, with commas; 'unix': proxies on a Unix socket; '*': any peer "
        f"(default: $FORWARDED_ALLOW_IPS or {','.join(LOCAL_PROXIES)})",
    )


def add_aliases(parser: argparse.ArgumentParser) -> None:
    """Add uvicorn's words for the arguments of ``parser``. The help does not list them."""
    known = {option: action for action in parser._actions for option in action.option_strings}
    for alias, name in _ALIASES.items():
        action = known[name]
        parser.add_argument(
            alias,
            dest=action.dest,
            type=action.type or str,
            choices=action.choices,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
    # uvicorn's default.
    parser.add_argument(
        "--access-log",
        dest="no_access_log",
        action="store_false",
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )
    for name, reason in _OTHER.items():
        parser.add_argument(
            name, nargs="?", action=_Refuse, reason=reason, default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


class _Refuse(argparse.Action):
    """An argument of uvicorn without an equivalent."""

    def __init__(self, reason: str, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._reason = reason

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> NoReturn:
        parser.error(f"{option_string} is an argument of uvicorn only: {self._reason}")


def options_of(args: argparse.Namespace, *, application: bool) -> dict[str, Any]:
    """Convert the arguments to fields of ``Options``. Raises ValueError if two contradict each other."""
    options: dict[str, Any] = {}
    for name, (option, _, _) in _NUMBERS.items():
        dest = name[2:].replace("-", "_")
        if hasattr(args, dest):
            value = getattr(args, dest)
            # For uvicorn, an interval of 0 means none, too.
            options[option] = None if option == "ping_interval" and value == 0 else value
    if not args.ws_per_message_deflate:
        options["compression"] = None
    if args.origin:
        options["origins"] = args.origin
    if args.recorder is not None:
        options["recorder"] = args.recorder
    trusted = _proxies(args, application=application)
    if trusted is not None:
        options["proxy_headers"] = trusted
    return options


@contextmanager
def naming(arguments: Mapping[str, str]) -> Iterator[None]:
    """Name the argument in an error about an option or a field, whose message begins with its name.

    ``arguments`` has the argument of each of them.

    Raises:
        ValueError: For a ValueError, and for a TypeError: "none" for an option that cannot be None.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        argument = arguments.get(str(error).partition(" ")[0])
        raise ValueError(f"{argument}: {error}" if argument else str(error)) from None


def _proxies(args: argparse.Namespace, *, application: bool) -> Sequence[str] | None:
    """The proxies to trust; None: as the Server says."""
    given = args.forwarded_allow_ips
    if args.proxy_headers is False:
        if given is not None:
            raise ValueError("--no-proxy-headers and --forwarded-allow-ips exclude each other")
        return ()
    if given is None and (application or args.proxy_headers):
        given = os.environ.get("FORWARDED_ALLOW_IPS", ",".join(LOCAL_PROXIES))
    if given is None:
        return None
    names = [name.strip() for name in given.split(",") if name.strip()]
    return ("0.0.0.0/0", "::/0", "unix") if names == ["*"] else names


def _truth(text: str) -> bool:
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return words[text.lower()]
