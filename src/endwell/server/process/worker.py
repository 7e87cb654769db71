"""What a worker process is told when it is started: whose it is, and what it listens on.

A worker is the same program, started again: it imports the code that is there now, has dice and
locks of its own, and comes to the same ``run()``, which finds here that it is a worker's.
"""

from __future__ import annotations

import _socket
import json
import os
import socket
import sys
from dataclasses import asdict, dataclass

from ..timetable import Drain
from . import systemd
from .balance import LoadTable
from .channel import Channel

__all__ = ["WorkerConfig", "command", "found"]

VARIABLE = "ENDWELL_WORKER"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Of one worker among those of its supervisor."""

    #: The supervisor's process.
    supervisor: int
    #: Which worker this is, from 1 on, and of how many.
    number: int
    count: int
    #: Its own in the table of loads.
    load: int
    #: Descriptors: the way to the supervisor; what all share, the table and the listening sockets.
    channel: int
    loads: int
    sockets: list[int]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them."""
        return self.channel, self.loads, *self.sockets

    def environment(self) -> dict[str, str]:
        """That of the process."""
        inherited = {name: value for name, value in os.environ.items() if name not in systemd.VARIABLES}
        return {**inherited, VARIABLE: json.dumps(asdict(self))}

    def share(self, drain: Drain) -> Drain:
        """How this worker drains, if all do as ``drain`` says."""
        return drain if drain.rate is None else drain.replace(rate=drain.rate / self.count)

    def open(self) -> tuple[Channel, list[_socket.socket], LoadTable]:
        """The way to the supervisor, the sockets, and the table."""
        for number in self.descriptors:
            os.set_inheritable(number, False)
        socks = [_socket.socket(fileno=number) for number in self.sockets]
        return Channel(socket.socket(fileno=self.channel)), socks, LoadTable(self.loads, self.load)


def found() -> WorkerConfig | None:
    """That of this process; None if it is no worker. Found once: a second server is nobody's worker.

    Raises SystemExit for a worker whose supervisor is gone already.
    """
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return None
    config = WorkerConfig(**json.loads(text))
    if config.supervisor != os.getppid():
        raise SystemExit(1)
    return config


def command() -> list[str]:
    """What starts this program again. Raises ValueError where it came from a terminal or a pipe."""
    file = getattr(sys.modules["__main__"], "__file__", "<stdin>")
    if not sys.executable or (file == "<stdin>" and "-c" not in sys.orig_argv):
        raise ValueError("workers start this program again, so it must be a file or a module")
    return [sys.executable, *sys.orig_argv[1:]]
