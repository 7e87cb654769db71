"""The argument of ``endwell serve`` that chooses what connects the rooms."""

from __future__ import annotations

import argparse

from ..rooms.rooms import make_bus

__all__ = ["add_bus", "check_bus"]


def add_bus(parser: argparse.ArgumentParser) -> None:
    """Add the argument to a parser."""
    parser.add_argument(
        "--bus",
        metavar="URL",
        help="connect the rooms of several machines by this Redis, Valkey or NATS, such as redis://host:6379/0 "
        "(default: $ENDWELL_BUS)",
    )


def check_bus(url: str | None) -> None:
    """Raise ValueError if a server cannot have this bus."""
    if url:
        try:
            make_bus(url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"--bus: {error}") from None
