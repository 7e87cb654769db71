"""What all connections of one event loop share: a buffer to read into, their timers, their epoll.

Where the system has epoll, the loop watches a single descriptor for all of them: an epoll of
our own, which tells what can be read. A loop's add_reader makes a handle, a context and a
watcher for each connection, half a KiB together; and on uvloop six system calls, and an
error that is announced only once.
"""

from __future__ import annotations

import asyncio
import select
from contextvars import Context
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..build import warn_of_failure
from .syscalls import monotonic
from .watchdog import StallDetector

if TYPE_CHECKING:
    from .stream import Stream

__all__ = ["Reactor", "reactor_of"]

#: One read of a socket, at most.
READ_SIZE = 256 * 1024
HAS_EPOLL = hasattr(select, "epoll")
#: One under TLS, and all of it is decrypted into the other buffer: see WRITE_SIZE in tls.py.
ENCRYPTED_SIZE = 32 * 1024
#: Connections read from in one turn of the loop.
EVENTS = 256
#: Seconds by which an alarm may come late: those of so long a time have one timer of the loop
#: together. A timer of its own would cost each connection more memory than its socket, and two
#: calls of the loop in each life.
GRAIN = 1 / 64


class Reactor:
    """One for each loop, for as long as it has connections: see :func:`reactor_of`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: Whatever a read brought is consumed before the next one.
        self.buffer = bytearray(READ_SIZE)
        #: The same for TLS, before it is decrypted into the other.
        self.encrypted = bytearray(ENCRYPTED_SIZE)
        #: libuv announces an error once and watches no longer, so on uvloop a reset that comes
        #: with data would go unseen behind it. A selector and epoll announce it again.
        self.ask_for_errors = not HAS_EPOLL and not isinstance(loop, asyncio.SelectorEventLoop)
        self._members = 0
        self._epoll: select.epoll | None = None
        self._readers: dict[int, Stream] = {}
        self._alarms: dict[int, set[Stream]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._stall_detector = StallDetector(loop)

    def enter(self) -> None:
        """One connection more. Raises OSError where there is no file descriptor left for them all."""
        if HAS_EPOLL and self._epoll is None:
            self._epoll = select.epoll()
            # In a context of nobody's: whoever happened to be the first must not lend the others its own.
            Context().run(self.loop.add_reader, self._epoll.fileno(), self._poll)
        if not self._members:
            self._stall_detector.start(self._stalled)
        self._members += 1

    def leave(self) -> None:
        """One connection less."""
        self._members -= 1
        if self._members:
            return
        self._stall_detector.stop()
        if self._epoll is not None:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def add_reader(self, fd: int, stream: Stream) -> None:
        """Have ``stream.readable()`` called whenever there is something to read, or an error."""
        if self._epoll is None:
            self.loop.add_reader(fd, stream.readable)
        else:
            self._epoll.register(fd, select.EPOLLIN)
            self._readers[fd] = stream

    def remove_reader(self, fd: int) -> None:
        """Take that back."""
        if self._epoll is None:
            self.loop.remove_reader(fd)
        else:
            del self._readers[fd]
            self._epoll.unregister(fd)

    def watch_errors_only(self, fd: int) -> None:
        """Tell of nothing but a reset, which only epoll can; until :meth:`unmute`, or to the end."""
        if self._epoll is None:
            self.loop.remove_reader(fd)
        else:
            self._epoll.modify(fd, 0)  # EPOLLERR and EPOLLHUP are told unasked

    def watch_reads(self, fd: int, stream: Stream) -> None:
        """Tell of everything again."""
        if self._epoll is None:
            self.loop.add_reader(fd, stream.readable)
        else:
            self._epoll.modify(fd, select.EPOLLIN)

    def _poll(self) -> None:
        assert self._epoll is not None
        readable = select.EPOLLIN
        if len(self._readers) == 1:
            # Whom else could it be about? A client most often has but one connection.
            (only,) = self._readers.values()
            if not only.errors_only:
                only.readable()
                return
        for fd, events in self._epoll.poll(0, EVENTS):
            stream = self._readers.get(fd)
            if stream is None:
                continue  # one of those before it has closed it
            try:
                if events & readable:
                    stream.readable()
                else:
                    stream.hung_up()
            except Exception as exc:
                # What a loop does with a callback that fails.
                self.loop.call_exception_handler({"message": f"reading {stream!r} failed", "exception": exc})

    def set_alarm(self, stream: Stream, at: float) -> None:
        """Have ``stream.tick()`` called when it is ``at``."""
        number = int(at / GRAIN) + 1
        streams = self._alarms.get(number)
        if streams is None:
            streams = self._alarms[number] = set()
            self._timers[number] = self.loop.call_later(number * GRAIN - monotonic(), self._ring, number)
        streams.add(stream)

    def unset_alarm(self, stream: Stream, at: float) -> None:
        """Take back what was set."""
        number = int(at / GRAIN) + 1
        streams = self._alarms.get(number)
        if streams is None:
            return
        streams.discard(stream)
        if not streams:
            del self._alarms[number]
            self._timers.pop(number).cancel()

    def _ring(self, number: int) -> None:
        del self._timers[number]
        # In a call for each: whatever one of them raises is no business of the others.
        for stream in self._alarms.pop(number):
            self.loop.call_soon(stream.tick)

    def _stalled(self, since: float, seconds: float) -> None:
        now = monotonic()
        # Whoever has no alarm waits for nothing. All of them are told before any alarm rings:
        # those that are due have only been handed to the loop.
        for streams in self._alarms.values():
            for stream in streams:
                stream.core.stalled(since, seconds, now)
                self.loop.call_soon(stream.settle)


_all: WeakValueDictionary[int, Reactor] = WeakValueDictionary()


def reactor_of(loop: asyncio.AbstractEventLoop) -> Reactor:
    """What the connections of ``loop`` share."""
    reactor = _all.get(id(loop))  # which is not another's, for they keep their loop alive
    if reactor is None:
        warn_of_failure()
        reactor = _all[id(loop)] = Reactor(loop)
    return reactor
