"""The address on which a command listens: its arguments, and the message if it cannot be bound."""

from __future__ import annotations

import argparse
import errno
import sys

__all__ = ["add_address", "cannot_listen"]


def add_address(parser: argparse.ArgumentParser, port: int | None, port_help: str) -> None:
    """Add --host and --port to a command."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=port, help=port_help)


def cannot_listen(command: str, address: str, error: OSError, *, port: bool = True) -> None:
    """Print the error and a hint; ``port``: whether the address has a port."""
    in_use = error.errno == errno.EADDRINUSE and port
    hint = "; choose another --port, or 0 for any free port" if in_use else ""
    print(f"endwell {command}: cannot listen on {address}: {error.strerror}{hint}", file=sys.stderr)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is between 0 and 65535, not {port}")
    return port
