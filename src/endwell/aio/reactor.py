"""What all connections of one event loop share: read buffers, timers and an epoll instance.

Where the system has epoll, the loop watches a single descriptor for all connections: the epoll instance
of this module. A loop's add_reader creates a handle, a context and a watcher for each connection,
together half a KiB; uvloop also makes six system calls, and announces an error only once.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from contextvars import Context
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..build import warn_of_failure
from .loop import memory_of
from .syscalls import monotonic
from .watchdog import StallDetector

if TYPE_CHECKING:
    from .driver import Driver
    from .tcp import TcpDriver

__all__ = ["Reactor", "reactor_of"]

#: Maximum number of bytes in one read of a socket.
READ_SIZE = 256 * 1024
HAS_EPOLL = hasattr(select, "epoll")
if HAS_EPOLL:
    # Kept, because gevent and eventlet remove it from the module, also after this import.
    from select import epoll
#: The same under TLS. All of it is decrypted into the other buffer: see WRITE_SIZE in tls.py.
ENCRYPTED_SIZE = 32 * 1024
#: Maximum number of connections that are read from in one turn of the loop.
EVENTS = 256
#: Seconds by which an alarm may be late. The alarms of one such interval share a timer of the loop. A
#: separate timer would cost each connection more memory than its socket, and two calls of the loop.
ALARM_RESOLUTION = 1 / 64


class Reactor:
    """The shared objects of one loop, while it has connections: see :func:`reactor_of`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: The read buffer. Its content is consumed before the next read.
        self.buffer = bytearray(READ_SIZE)
        #: The read buffer for encrypted data.
        self.encrypted = bytearray(ENCRYPTED_SIZE)
        #: libuv announces an error once and then stops watching, so uvloop would miss a reset that comes
        #: together with data. A selector and epoll announce it again.
        self.ask_for_errors = not HAS_EPOLL and not isinstance(loop, asyncio.SelectorEventLoop)
        #: The network of a loop whose connections are in memory (see virtual.py); None: the kernel's.
        self.memory = memory_of(loop)
        #: Whether sockets can be watched. If not, connections use a transport of the loop.
        self.has_readers = self.memory is None and _can_watch(loop)
        self._members = 0
        self._epoll: select.epoll | None = None
        self._readers: dict[int, TcpDriver] = {}
        self._alarms: dict[int, set[Driver]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._stall_detector = StallDetector(loop)
        #: Seconds for which the loop was stalled, in total.
        self.seconds_stalled = 0.0

    def enter(self, watches: bool = True) -> None:
        """Add a connection. Raises OSError if there is no file descriptor left for the epoll instance.

        ``watches``: whether :meth:`add_reader` will be called.
        """
        if watches and HAS_EPOLL and self._epoll is None:
            self._epoll = epoll()
            # In an empty context: the callbacks of all connections must not run in the context of the first
            # one.
            Context().run(self.loop.add_reader, self._epoll.fileno(), self._poll)
        if not self._members and self.memory is None:  # a virtual clock is never late
            self._stall_detector.start(self._stalled)
        self._members += 1

    def leave(self) -> None:
        """Remove a connection."""
        self._members -= 1
        if self._members:
            return
        if self.memory is None:
            self._stall_detector.stop()
        if self._epoll is not None:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def add_reader(self, fd: int, driver: TcpDriver) -> None:
        """Call ``driver.readable()`` whenever there is data or an error."""
        if self._epoll is None:
            self.loop.add_reader(fd, driver.readable)
        else:
            self._epoll.register(fd, select.EPOLLIN)
            self._readers[fd] = driver

    def remove_reader(self, fd: int) -> None:
        """Undo :meth:`add_reader`."""
        if self._epoll is None:
            self.loop.remove_reader(fd)
        else:
            del self._readers[fd]
            self._epoll.unregister(fd)

    def watch_errors_only(self, fd: int) -> None:
        """Announce only a reset, until :meth:`watch_reads`. Only epoll can do that."""
        if self._epoll is None:
            self.loop.remove_reader(fd)
        else:
            self._epoll.modify(fd, 0)  # epoll always announces EPOLLERR and EPOLLHUP

    def watch_reads(self, fd: int, driver: TcpDriver) -> None:
        """Announce data again."""
        if self._epoll is None:
            self.loop.add_reader(fd, driver.readable)
        else:
            self._epoll.modify(fd, select.EPOLLIN)

    def _poll(self) -> None:
        assert self._epoll is not None
        readable = select.EPOLLIN
        if len(self._readers) == 1:
            # The event can only be for this one. Most clients have a single connection.
            (only,) = self._readers.values()
            if not only.errors_only:
                only.readable()
                return
        for fd, events in self._epoll.poll(0, EVENTS):
            driver = self._readers.get(fd)
            if driver is None:
                continue  # an earlier callback of this loop has closed it
            try:
                if events & readable:
                    driver.readable()
                else:
                    driver.hung_up()
            except Exception as exc:
                # As a loop does with a callback that fails.
                self.loop.call_exception_handler({"message": f"reading {driver!r} failed", "exception": exc})

    def set_alarm(self, driver: Driver, at: float) -> None:
        """Call ``driver.tick()`` at the time ``at``."""
        number = int(at / ALARM_RESOLUTION) + 1
        drivers = self._alarms.get(number)
        if drivers is None:
            drivers = self._alarms[number] = set()
            self._timers[number] = self.loop.call_later(
                number * ALARM_RESOLUTION - monotonic(), self._alarms_due, number
            )
        drivers.add(driver)

    def unset_alarm(self, driver: Driver, at: float) -> None:
        """Undo :meth:`set_alarm`."""
        number = int(at / ALARM_RESOLUTION) + 1
        drivers = self._alarms.get(number)
        if drivers is None:
            return
        drivers.discard(driver)
        if not drivers:
            del self._alarms[number]
            self._timers.pop(number).cancel()

    def _alarms_due(self, number: int) -> None:
        del self._timers[number]
        # One call for each, so that an exception in one does not affect the others.
        for driver in self._alarms.pop(number):
            self.loop.call_soon(driver.tick)

    def _stalled(self, since: float, seconds: float) -> None:
        now = monotonic()
        self.seconds_stalled += seconds
        # A driver without an alarm has no deadline. All drivers are informed before any alarm runs: those
        # that are due have only been scheduled.
        for drivers in self._alarms.values():
            for driver in drivers:
                driver.core.stalled(since, seconds, now)
                self.loop.call_soon(driver.settle)

    def forked(self) -> None:
        """Release the parent's connections in a forked child, which shares the epoll instance with the parent."""
        drivers: set[Driver] = set(self._readers.values())
        for driver in drivers.union(*self._alarms.values()):
            driver.forked()
        self._readers.clear()
        if self._epoll is not None:
            # Not through the loop: it would remove the parent's descriptor from the parent's own epoll instance.
            self._epoll.close()
            self._epoll = epoll()


def _can_watch(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether ``loop`` has ``add_reader``. Windows' default loop has not."""
    if os.environ.get("ENDWELL_DRIVER") == "transport":
        return False
    try:
        with socket.socket() as probe:
            loop.add_reader(probe.fileno(), bool)
            loop.remove_reader(probe.fileno())
    except NotImplementedError:
        return False
    except OSError:
        pass  # no file descriptor is left
    return True


_all: WeakValueDictionary[int, Reactor] = WeakValueDictionary()


def reactor_of(loop: asyncio.AbstractEventLoop) -> Reactor:
    """Return the reactor of ``loop``."""
    reactor = _all.get(id(loop))  # the id is unambiguous, because a reactor keeps its loop alive
    if reactor is None:
        warn_of_failure()
        reactor = _all[id(loop)] = Reactor(loop)
    return reactor


def _in_child() -> None:
    for reactor in list(_all.values()):
        reactor.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
