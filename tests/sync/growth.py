"""Connections that open and end in every way, and what remains of them.

    python -m tests.sync.growth 10000

Prints threads, file descriptors, resident memory and live connections after each tenth.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import endwell
from endwell import ConnectionClosed, HandshakeRejected, sync
from endwell.sync.bridge import Bridge

__all__ = ["WAYS", "Left", "churn", "left", "server"]


class Left(NamedTuple):
    """The resources that the process holds."""

    threads: int
    descriptors: int
    bridges: int
    resident: int  # KiB


def left() -> Left:
    gc.collect()
    resident = next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    bridges = sum(isinstance(each, Bridge) for each in gc.get_objects())
    return Left(threading.active_count(), len(os.listdir("/proc/self/fd")), bridges, resident)


def server() -> endwell.Server:
    """A server with a blocking handler for each ending."""
    server = endwell.Server(compression=None)

    @server.websocket("/{what}")
    def handle(ws, what):
        if what == "echo":
            for message in ws:
                ws.send(message)
        elif what == "close":
            ws.close(4001, "enough")
        elif what == "raise":
            raise RuntimeError(what)
        elif what == "abort":
            ws.abort()
        elif what == "deaf":
            time.sleep(0.05)  # it reads nothing meanwhile
            for _ in ws:
                pass

    return server


def _echo(address: str) -> sync.WebSocket:
    ws = sync.connect(address + "/echo", compression=None)
    ws.send("hello")
    assert ws.recv() == "hello"
    return ws


def _closed_by_us(address: str) -> None:
    with _echo(address):
        pass


def _closed_by_them(address: str, what: str = "close") -> None:
    with sync.connect(f"{address}/{what}") as ws:
        assert ws.read() is None


def _returned(address: str) -> None:
    _closed_by_them(address, "return")


def _raised(address: str) -> None:
    _closed_by_them(address, "raise")


def _aborted_by_them(address: str) -> None:
    _closed_by_them(address, "abort")


def _aborted_by_us(address: str) -> None:
    ws = _echo(address)
    ws.abort()
    assert ws.read() is None


def _forgotten(address: str) -> None:
    _echo(address)


def _with_callback(address: str) -> None:
    calls: list[endwell.Ending] = []
    ws = _echo(address)
    ws.on_close(calls.append)
    ws.close()
    assert calls == [ws.ending]


def _timed_out(address: str) -> None:
    with _echo(address) as ws:
        for call in (ws.recv, ws.wait_closed):
            try:
                call(0.0001)
            except TimeoutError:
                continue
            raise AssertionError


def _refused(address: str) -> None:
    try:
        sync.connect(address + "/no/such/route")
    except HandshakeRejected:
        return
    raise AssertionError


def _shared(address: str) -> None:
    ws = _echo(address)
    readers = [threading.Thread(target=ws.read) for _ in range(3)]
    for each in readers:
        each.start()
    ws.close()
    for each in readers:
        each.join()


def _blocked(address: str) -> None:
    ws = sync.connect(address + "/deaf", compression=None)
    cut = threading.Timer(0.02, ws.abort)
    cut.start()
    try:
        while True:
            ws.send(bytes(1_000_000))
    except ConnectionClosed:
        cut.join()


WAYS: tuple[Callable[[str], None], ...] = (
    _closed_by_us,
    _closed_by_them,
    _returned,
    _raised,
    _aborted_by_us,
    _aborted_by_them,
    _forgotten,
    _with_callback,
    _timed_out,
    _refused,
    _shared,
    _blocked,
)


def churn(address: str, count: int) -> None:
    """Open ``count`` connections, which end in each way in turn."""
    for number in range(count):
        WAYS[number % len(WAYS)](address)


def main() -> None:
    """Churn, and print the resources that remain."""
    count = int(sys.argv[1])
    import logging

    logging.disable()  # of handlers that are meant to fail
    with sync.serving(server(), grace=1) as serving:
        address = f"ws://127.0.0.1:{serving.port}"
        churn(address, 10 * len(WAYS))
        for tenth in range(11):
            time.sleep(0.1)
            names = Counter(thread.name.rstrip("0123456789 ") for thread in threading.enumerate())
            print(f"{tenth * count // 10:7}", left(), dict(names), flush=True)
            churn(address, count // 10)


if __name__ == "__main__":
    main()
