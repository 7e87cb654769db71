"""A worker process, seen from its supervisor."""

from __future__ import annotations

import signal
import socket
import subprocess
from dataclasses import replace
from math import inf

from ...aio.syscalls import monotonic
from ...rooms.broker import Link
from .channel import Channel
from .signals import hold_back
from .worker import WorkerConfig

__all__ = ["Worker"]

#: Maximum seconds from the start of a worker until it listens.
START_TIME = 120.0
#: Seconds between SIGABRT and SIGKILL, in which ``faulthandler`` prints where the worker hangs.
ABORT_TIME = 1.0


class Worker:
    """A worker process, seen from the supervisor."""

    def __init__(self, command: list[str], config: WorkerConfig, generation: int) -> None:
        self.number = config.number
        self.load = config.load
        #: 0 for the first workers; each restart starts the next generation.
        self.generation = generation
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        near, far = socket.socketpair()
        #: Its connection to the bus of the rooms.
        self.link = Link(near)
        try:
            self.process = _process(command, replace(config, channel=theirs.fileno(), bus=far.fileno()))
        except OSError:
            ours.close()
            near.close()
            raise
        finally:
            theirs.close()
            far.close()
        self.started = monotonic()
        #: Whether it listens.
        self.ready = False
        #: Whether it was asked to exit, and then whether it may drain.
        self.leaving = self.drains = False
        #: Whether its successor was started, because it has answered enough requests.
        self.succeeded = False
        #: Maximum seconds that it needs to drain, as it reported.
        self.deadline = 0.0
        #: The time at which the supervisor kills it.
        self.due = self.started + START_TIME
        #: Whether SIGABRT was sent.
        self.aborted = False

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"

    def begin(self, deadline: float) -> None:
        """It listens, and needs at most ``deadline`` seconds to drain."""
        self.ready, self.deadline = True, deadline
        if not self.leaving:
            self.due = inf
        elif self.drains:
            # It was asked to exit before it was known to listen. It may have accepted connections.
            self.due += deadline

    def request_exit(self, word: str, seconds: float) -> None:
        """Ask it to exit within ``seconds``; ``word`` says how."""
        self.leaving, self.drains = True, word != "now"
        self.due = monotonic() + seconds
        self.channel.send(word)
        if not self.ready:
            self.process.terminate()  # it has no connections yet, and may not read the channel yet

    def kill(self) -> None:
        """Kill it: with SIGABRT at the first call, so that it prints where it hangs, then with SIGKILL."""
        # Precedent: gunicorn's murder_workers.
        self.due = inf if self.aborted else monotonic() + ABORT_TIME
        self.process.send_signal(signal.SIGKILL if self.aborted else signal.SIGABRT)
        self.aborted = True

    def exit_status(self) -> str:
        """How the process exited, as text."""
        status: int = self.process.returncode
        if status >= 0:
            return f"exited with status {status}"
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:  # real-time signals have no names
            return f"was killed by signal {-status}"


def _process(command: list[str], config: WorkerConfig) -> subprocess.Popen[bytes]:
    with hold_back():
        return subprocess.Popen(  # noqa: S603  (the command line of this process)
            command,
            env=config.environment(),
            pass_fds=config.descriptors,
            # Detached from the terminal, because Ctrl-C would otherwise reach each worker directly and through
            # us.
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
