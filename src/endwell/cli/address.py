"""The address on which a command listens, its other arguments, and the message if it cannot be bound."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Iterable

__all__ = ["DEFAULT_HOST", "add_address", "cannot_listen", "positive", "refuse_together", "unix_path"]

DEFAULT_HOST = "127.0.0.1"


def add_address(parser: argparse.ArgumentParser, port_help: str) -> None:
    """Add --host and --port to a command. Each is None if it is not given."""
    parser.add_argument("--host", help=f"address to listen on (default: {DEFAULT_HOST})")
    parser.add_argument("--port", type=_port, help=port_help)


def refuse_together(args: argparse.Namespace, option: str, others: Iterable[str]) -> None:
    """Raise ValueError if ``option`` and one of ``others`` are given, because one of them would be ignored."""
    for other in others:
        if _given(args, option) and _given(args, other):
            raise ValueError(f"{option} and {other} exclude each other")


def _given(args: argparse.Namespace, option: str) -> bool:
    # 0 is a value, such as that of --port. Without the option, the value is None or, for a flag, False.
    value = getattr(args, option.lstrip("-").replace("-", "_"))
    return value is not None and value is not False


def unix_path(name: str | None) -> str | None:
    """Convert the argument of --unix, where ``@`` stands for the null byte of an abstract socket."""
    return f"\0{name[1:]}" if name is not None and name.startswith("@") else name


def cannot_listen(command: str, address: str, error: OSError, *, port: bool = True) -> None:
    """Print the error and a hint; ``port``: whether the address has a port."""
    in_use = error.errno == errno.EADDRINUSE and port
    hint = "; choose another --port, or 0 for any free port" if in_use else ""
    print(f"endwell {command}: cannot listen on {address}: {error.strerror}{hint}", file=sys.stderr)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number between 0 and 65535, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """The type of an argument that is a number of processes or requests."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer, at least 1, not {text!r}")
    return int(text)
