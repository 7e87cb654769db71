"""The configuration that a supervisor passes to a worker process.

A worker is the same program, started again. It imports the current code, and has its own random numbers and
locks. It reaches the same ``run()``, which finds the configuration here and runs as a worker.
"""

from __future__ import annotations

import _socket
import json
import os
import socket
import sys
from dataclasses import asdict, dataclass, field

from ...rooms.bus import Bus
from ...rooms.supervised import SupervisorBus
from ..drain.timetable import Drain
from . import signals, systemd
from .balance import LoadTable
from .channel import Channel

__all__ = ["WorkerConfig", "command", "find_config", "is_worker"]

VARIABLE = "ENDWELL_WORKER"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The configuration of one worker."""

    #: Process ID of the supervisor.
    supervisor: int
    #: The number of this worker, from 1, and the number of workers.
    number: int
    count: int
    #: The slot of this worker in the load table.
    load: int
    #: File descriptors: of the channel to the supervisor, of the load table, and of the listening sockets.
    channel: int
    loads: int
    sockets: list[int]
    #: File descriptor of the connection to the supervisor for the rooms. A supervisor that was started before an
    #: update may have none.
    bus: int = -1
    #: File descriptor of the counts of all workers. Likewise.
    counts: int = -1
    #: A random name for them. Likewise.
    counts_name: str = ""
    #: Whether the supervisor counts connections. One that was started before an update does not.
    reserves: bool = False
    #: The pages that have their own port: host, port, and the file descriptors of the listening sockets. Likewise.
    pages: list[tuple[str, int, list[int]]] = field(default_factory=list)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All file descriptors."""
        pages = [number for _, _, numbers in self.pages for number in numbers]
        own = self.channel, self.loads, *self.sockets, *pages
        return *own, *(number for number in (self.bus, self.counts) if number >= 0)

    def environment(self) -> dict[str, str]:
        """The environment variables of the worker process."""
        inherited = {name: value for name, value in os.environ.items() if name not in systemd.VARIABLES}
        return {**inherited, VARIABLE: json.dumps(asdict(self))}

    def share(self, drain: Drain) -> Drain:
        """This worker's share of ``drain``: the rate is divided among the workers."""
        return drain if drain.rate is None else drain.replace(rate=drain.rate / self.count)

    def open(self) -> tuple[Channel, list[_socket.socket], LoadTable, Bus | None]:
        """Open the channel to the supervisor, the sockets, the load table and the bus of the rooms."""
        for number in self.descriptors:
            os.set_inheritable(number, False)
        socks = [_socket.socket(fileno=number) for number in self.sockets]
        bus = (
            None if self.bus < 0 else SupervisorBus(socket.socket(fileno=self.bus), can_reserve=self.reserves)
        )
        return Channel(socket.socket(fileno=self.channel)), socks, LoadTable(self.loads, self.load), bus

    def page_sockets(self, host: str, port: int) -> list[_socket.socket]:
        """The sockets of a page that has its own port; none if the supervisor does not have this page."""
        found = [numbers for *address, numbers in self.pages if address == [host, port]]
        return [_socket.socket(fileno=number) for numbers in found for number in numbers]


def is_worker() -> bool:
    """Whether a supervisor has started this process, and :func:`find_config` was not called yet."""
    return VARIABLE in os.environ


def worker_number() -> int | None:
    """The number of this worker, from 1; None if a supervisor did not start this process.

    Call it before :func:`find_config`.
    """
    config = _config()
    return None if config is None else config.number


def find_config() -> WorkerConfig | None:
    """Return the configuration of this process, or None if it is not a worker.

    A second call returns None, because a second server of this process is not supervised.

    Raises:
        SystemExit: The supervisor has already exited.
    """
    config = _config()
    os.environ.pop(VARIABLE, None)
    if config is not None and config.supervisor != os.getppid():
        raise SystemExit(1)
    return config


def _config() -> WorkerConfig | None:
    text = os.environ.get(VARIABLE)
    return None if text is None else WorkerConfig(**json.loads(text))


def command() -> list[str]:
    """Return the command line that starts this program again.

    Raises:
        ValueError: The program was read from a terminal or a pipe.
    """
    file = getattr(sys.modules["__main__"], "__file__", "<stdin>")
    if not sys.executable or (file == "<stdin>" and "-c" not in sys.orig_argv):
        raise ValueError("workers start this program again, so the program must be a file or a module")
    return [sys.executable, *sys.orig_argv[1:]]


def _ignore_signals() -> None:
    """Ignore in a worker the signals that its supervisor handles. ``kill`` of all processes sends them to it, too.

    Until here they are blocked, and a program that the worker starts inherits that. So this is called as early as
    possible: when the application imports endwell.
    """
    if (config := _config()) is not None and config.supervisor == os.getppid():
        signals.ignore()


_ignore_signals()
