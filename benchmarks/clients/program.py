"""What every client of the benchmark does alike: its options, its loop, the messages, the window."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable

from loops import LOOPS, loop_factory

#: So many different payloads go round: more than are in flight.
PAYLOADS = 64
#: With less than this a window is prolonged: on a crowded machine somebody was kept from running.
ENOUGH = 20


class Exchange:
    """The messages of one connection, checked and counted; the window begins some time after it has opened.

    ``later(seconds, function)`` calls a function when the time has come.
    """

    def __init__(
        self, args: argparse.Namespace, later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self.url = f"ws://127.0.0.1:{args.port}/echo"
        self.depth: int = args.depth
        self.over = False
        self._count = 0
        self._payloads = [random.Random(n).randbytes(args.size) for n in range(PAYLOADS)]
        self._seconds: float = args.seconds
        self._warmup: float = args.warmup
        self._later = later
        self._begin: tuple[int, float, float] = (0, 0.0, 0.0)

    def first(self) -> list[bytes]:
        """What is sent as soon as the connection is open."""
        self._later(self._warmup, self._warm)
        return self._payloads[: self.depth]

    def next(self, reply: str | bytes) -> bytes:
        """What to send after this reply, which has to be the next one."""
        count = self._count
        if reply != self._payloads[count % PAYLOADS]:
            # Not by an exception, which a callback's caller may swallow.
            print(f"message {count} differs", file=sys.stderr, flush=True)
            os._exit(1)
        self._count = count + 1
        return self._payloads[(count + self.depth) % PAYLOADS]

    def _reading(self) -> tuple[int, float, float]:
        return self._count, time.perf_counter(), time.process_time()

    def _warm(self) -> None:
        self._begin = self._reading()
        self._later(self._seconds, self._end)

    def _end(self) -> None:
        if self._count < self._begin[0] + ENOUGH:
            self._later(0.1, self._end)
            return
        count, seconds, cpu = (e - b for b, e in zip(self._begin, self._reading(), strict=True))
        self.over = True
        print(json.dumps({"count": count, "seconds": seconds, "cpu": cpu}), flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", choices=LOOPS, default="uvloop")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--warmup", type=float, default=0.2)
    parser.add_argument("--seconds", type=float, default=0.7)
    return parser.parse_args()


def run(echo: Callable[[Exchange], Awaitable[None]]) -> None:
    """Have ``echo`` send and receive until the exchange is over."""
    args = arguments()

    async def main() -> None:
        later = asyncio.get_running_loop().call_later
        await asyncio.wait_for(echo(Exchange(args, later)), args.warmup + args.seconds + 20)

    with asyncio.Runner(loop_factory=loop_factory(args.loop)) as runner:
        runner.run(main())


def run_blocking(echo: Callable[[Exchange], None]) -> None:
    """The same for a client that blocks; it has no loop of its own to choose."""

    def later(seconds: float, function: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, function)
        timer.daemon = True
        timer.start()

    echo(Exchange(arguments(), later))
