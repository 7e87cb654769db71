"""What is measured, and what endwell promises about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import product

from contenders import BASELINE, BASELINE_BLOCKING, OURS, OURS_BLOCKING


class Kind(Enum):
    """How a scenario is measured."""

    LOAD = "the processor time of a server, under load"
    CLIENT = "the processor time of a client, against a fast server"
    IDLE = "the memory of a fresh server, with many connections"


@dataclass(frozen=True)
class Promise:
    """A promise: a figure is at most ``at_most`` times that of the scenario's baseline on the same loop."""

    at_most: float
    figure: str = "cost"
    #: If set, ``at_most`` is the figure itself.
    absolute: bool = False


@dataclass(frozen=True)
class Scenario:
    """One row: the arguments of the load generator, or of the measured client."""

    name: str
    kind: Kind
    arguments: tuple[str, ...]
    #: The unit of its cost.
    unit: str = "µs per message"
    promises: tuple[Promise, ...] = ()
    tls: bool = False
    deflate: bool = False
    baseline: str = BASELINE
    ours: str = OURS
    #: Whether it is about blocking clients and handlers.
    blocking: bool = False
    quick: bool = False
    #: Visits in each repetition; if more than one, only endwell and the baseline are visited.
    rounds: int = 1


SIZES = {"32 B": 32, "1 KiB": 1024, "64 KiB": 65536, "1 MiB": 2**20}
IDLE_CONNECTIONS = 5000
RECEIVERS = 1000

#: The cost is at most ``at_most`` times that of the picows listener.
ECHO = {
    ("32 B", 64, 1): 1.00,
    ("1 KiB", 64, 1): 1.00,
    ("32 B", 64, 16): 0.12,
    ("1 KiB", 64, 16): 0.12,
    ("64 KiB", 64, 1): 0.95,
    ("64 KiB", 64, 16): 0.95,
    ("1 MiB", 8, 4): 1.00,
}
SECURE = {("1 KiB", 64, 1): 1.00, ("1 KiB", 64, 16): 0.35}
QUICK = {("32 B", 64, 1), ("1 KiB", 64, 1), ("1 KiB", 64, 16), ("64 KiB", 64, 16), ("1 MiB", 8, 4)}


def _echo(size: str, connections: int, depth: int, *how: str) -> Scenario:
    """``how``: "text", "wss"."""
    wanted = (SECURE if "wss" in how else ECHO).get((size, connections, depth)) if "text" not in how else None
    arguments = ["echo", f"--size={SIZES[size]}", f"--connections={connections}", f"--depth={depth}"]
    return Scenario(
        " ".join([*(how or ["ws"]), size, f"{connections}x{depth}"]),
        Kind.LOAD,
        (*arguments, *(f"--{word}" for word in how if word == "text"), *(["--tls"] if "wss" in how else [])),
        promises=(Promise(wanted),) if wanted else (),
        tls="wss" in how,
        quick=(size, connections, depth) in QUICK and "text" not in how and "64 KiB" not in how,
    )


def _tail(size: str) -> Scenario:
    # Other processes on the machine can double a tail latency from one second to the next.
    echo = _echo(size, 64, 1)
    promises = (Promise(1.00, figure="p99"),)
    return replace(echo, name=f"tail {size} 64x1", promises=promises, quick=False, rounds=5)


def _blocking() -> Iterator[Scenario]:
    both = {"baseline": BASELINE_BLOCKING, "ours": OURS_BLOCKING, "blocking": True, "quick": True}
    for size, connections, depth in product(("32 B", "1 KiB"), (1, 64), (1, 16)):
        echo = _echo(size, connections, depth)
        yield replace(echo, name=f"blocking {echo.name[3:]}", promises=(Promise(1.00),), **both)
    for size, depth in product(("32 B", "1 KiB"), (1, 16)):
        client = _client(size, depth, 1.00)
        yield replace(client, name=f"blocking {client.name}", **both)


def _client(size: str, depth: int, at_most: float) -> Scenario:
    return Scenario(
        f"client {size} 1x{depth}",
        Kind.CLIENT,
        (f"--size={SIZES[size]}", f"--depth={depth}"),
        promises=(Promise(at_most),),
        quick=True,
    )


def _scenarios() -> Iterator[Scenario]:
    for size in ("32 B", "1 KiB", "64 KiB"):
        for connections, depth in ((1, 1), (64, 1), (64, 16)):
            yield _echo(size, connections, depth)
    for connections, depth in ((1, 1), (64, 1), (8, 4)):
        yield _echo("1 MiB", connections, depth)
    for size in ("32 B", "1 KiB"):
        yield _tail(size)
    for size, depth in (("32 B", 16), ("1 KiB", 1), ("1 KiB", 16), ("64 KiB", 1)):
        yield _echo(size, 64, depth, "text")
    for size, depth in (("1 KiB", 1), ("1 KiB", 16), ("64 KiB", 1)):
        yield _echo(size, 64, depth, "wss")
    yield _echo("1 MiB", 8, 4, "wss")
    yield Scenario(
        "deflate 1 KiB JSON 64x1",
        Kind.LOAD,
        ("echo", "--size=1024", "--connections=64", "--deflate"),
        promises=(Promise(1.00),),
        deflate=True,
        baseline="aiohttp",  # the picows listener has no compression
        quick=True,
    )
    yield Scenario(
        "churn, 32 at once",
        Kind.LOAD,
        ("churn", "--size=32", "--connections=32"),
        "µs per connection",
        (Promise(0.75),),
        quick=True,
    )
    yield Scenario(
        f"broadcast 1 KiB to {RECEIVERS}",
        Kind.LOAD,
        ("broadcast", "--path=/broadcast", "--size=1024", f"--connections={RECEIVERS}"),
        "µs per delivery",
        (Promise(1.00),),
        quick=True,
    )
    for depth, at_most in ((1, 1.00), (16, 0.35)):
        yield _client("1 KiB", depth, at_most)
    yield from _blocking()
    yield Scenario(
        f"idle, {IDLE_CONNECTIONS} connections",
        Kind.IDLE,
        ("idle", "--size=32", f"--connections={IDLE_CONNECTIONS}"),
        "KiB per connection",
        (Promise(4.0, absolute=True),),
    )


SCENARIOS = tuple(_scenarios())
