"""What all clients of the benchmark share: options, loop, messages, measuring window."""

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

#: The number of different payloads: more than there are messages in flight.
PAYLOADS = 64
#: A window with less CPU than this is prolonged: on a busy machine a process was not scheduled.
ENOUGH = 20


class Exchange:
    """The messages of one connection, checked and counted; the window starts some time after the opening.

    ``later(seconds, function)`` calls a function after that time.
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
        """The messages to send when the connection is open."""
        self._later(self._warmup, self._warm)
        return self._payloads[: self.depth]

    def next(self, reply: str | bytes) -> bytes:
        """The message to send after this reply, which must be the next one."""
        count = self._count
        if reply != self._payloads[count % PAYLOADS]:
            # Not by an exception, which the caller of a callback may swallow.
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
    """Run ``echo`` until the exchange is over."""
    args = arguments()

    async def main() -> None:
        later = asyncio.get_running_loop().call_later
        await asyncio.wait_for(echo(Exchange(args, later)), args.warmup + args.seconds + 20)

    with asyncio.Runner(loop_factory=loop_factory(args.loop)) as runner:
        runner.run(main())


def run_blocking(echo: Callable[[Exchange], None]) -> None:
    """The same for a blocking client, which has no loop to choose."""

    def later(seconds: float, function: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, function)
        timer.daemon = True
        timer.start()

    echo(Exchange(arguments(), later))
