"""Name resolution in threads of this module.

``loop.getaddrinfo`` uses the loop's default executor, which has few threads and is shared with the
application. There, hanging lookups delay the others. The interpreter waits for these threads at its
exit, and the executor refuses lookups after the end of the main thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
from _socket import AI_NUMERICHOST, SOCK_STREAM, gaierror, getaddrinfo
from collections import deque
from contextlib import suppress

__all__ = ["Address", "resolve"]

#: Family and address, in the format of the socket module.
Address = tuple[int, tuple[object, ...]]

#: Maximum number of parallel lookups. Each has a thread while it runs; further ones wait.
THREADS = 128


async def resolve(host: str, port: int, of_family: int = 0) -> list[Address]:
    """Return the addresses of ``host``, in the system's order of preference (RFC 6724).

    ``of_family`` is the wanted address family; 0 for any. An IP address needs no lookup, and may have a zone.
    Raises OSError, including socket.gaierror.
    """
    try:
        return _addresses(host, port, of_family, AI_NUMERICHOST)
    except gaierror:
        return await _lookups.look_up(host, port, of_family)


def _addresses(host: str, port: int, of_family: int, flags: int = 0) -> list[Address]:
    # As bytes: the socket module would IDNA-encode a str again, and raise UnicodeError for a long label.
    found = getaddrinfo(host.encode("ascii"), port, of_family, SOCK_STREAM, 0, flags)
    return [(family, address) for family, _, _, _, address in found]


class _Lookups:
    """The lookups of the process, each in a daemon thread.

    A thread ends when no lookup waits: a lookup costs more than starting a thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Lookup] = deque()
        self._threads = 0

    async def look_up(self, host: str, port: int, of_family: int) -> list[Address]:
        """See :func:`resolve`. A lookup that is cancelled before it starts is skipped."""
        lookup = _Lookup(host, port, of_family)
        with self._lock:
            self._waiting.append(lookup)
            start = self._threads < THREADS
            self._threads += start
        if start:
            try:
                threading.Thread(target=self._work, name="endwell resolver", daemon=True).start()
            except RuntimeError as error:  # the system cannot start a thread, or the interpreter exits
                with self._lock:
                    self._threads -= 1
                    with suppress(ValueError):  # another thread has taken it
                        self._waiting.remove(lookup)
                        raise OSError(f"cannot look up a name: {error}") from error
        return await lookup.found

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                lookup = self._waiting.popleft()
            lookup.run()


class _Lookup:
    """One lookup, and the future of the coroutine that waits for it."""

    def __init__(self, host: str, port: int, of_family: int) -> None:
        self.host = host
        self.port = port
        self.of_family = of_family
        self._loop = asyncio.get_running_loop()
        self.found: asyncio.Future[list[Address]] = self._loop.create_future()

    def run(self) -> None:
        """Do the lookup. Runs in a thread."""
        if self.found.cancelled():
            return
        answer: list[Address] | OSError
        try:
            answer = _addresses(self.host, self.port, self.of_family)
        except OSError as error:
            answer = error
        with suppress(RuntimeError):  # the loop is closed: nothing waits for the answer
            self._loop.call_soon_threadsafe(self._set_answer, answer)

    def _set_answer(self, answer: list[Address] | OSError) -> None:
        if self.found.done():
            return
        if isinstance(answer, OSError):
            self.found.set_exception(answer)
        else:
            self.found.set_result(answer)


_lookups = _Lookups()


def _in_child() -> None:
    global _lookups  # noqa: PLW0603  (the parent's threads are not here, and its lock may be held)
    _lookups = _Lookups()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
