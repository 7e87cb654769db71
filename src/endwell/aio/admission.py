"""Limits for the connections of a server: in total and for each address."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from ..options import Options

__all__ = ["UNLIMITED", "Admission", "LimitLog", "Permit", "Places", "address_key"]

logger = logging.getLogger("endwell.server")

#: Connections above a limit that get a 503 at the same time. Further ones are closed without an
#: answer, because each answer occupies a connection too.
REFUSALS = 64

#: RFC 4291 §2.5.5.2: the start of an IPv6 address that stands for an IPv4 address.
MAPPED = bytes(10) + b"\xff\xff"

#: The key of the total count.
_ALL = object()


class LimitLog:
    """Logs when a limit is reached and when it is no longer reached: one line each."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        # The limit counts as left at nine tenths, so that a count that moves around the limit does not fill
        # the log.
        self._over = min(limit - 1, limit * 9 // 10)
        self._refused = 0

    def refused(self) -> None:
        """Count a refusal, because the limit is reached."""
        self._refused += 1
        if self._refused == 1:
            logger.warning("%s (%d) is reached: more are refused with 503", self._name, self._limit)

    def left(self, count: int) -> None:
        """Note that there are ``count`` connections now."""
        if self._refused and count <= self._over:
            logger.warning(
                "%s (%d) is no longer reached; refused meanwhile: %d", self._name, self._limit, self._refused
            )
            self._refused = 0


class Places(Protocol):
    """The places for the connections of several processes, if ``max_connections`` holds for all together."""

    @property
    def total(self) -> int:
        """Number of places that are in use, as far as this process knows."""

    @property
    def waiting(self) -> int:
        """Number of connections that wait for a place."""

    async def take(self) -> bool:
        """Take a place. Returns False if none is free."""

    def give(self) -> None:
        """Give a place back."""


class Permit:
    """The share of one connection in the counts, from accept to its end. ``places`` gets its place back."""

    __slots__ = ("_counts", "_key", "_log", "_places", "refused")

    def __init__(
        self,
        counts: Counter[object],
        key: object,
        log: LimitLog | None,
        refused: bool,
        places: Places | None = None,
    ) -> None:
        self._counts = counts
        self._key = key
        self._log = log
        self._places = places
        #: Whether the connection is above a limit and only gets a 503.
        self.refused = refused

    def leave(self, *_: object) -> None:
        """Release the share: the connection has ended."""
        for key in (_ALL, self._key):
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
        if self._places is not None:
            self._places.give()
        if self._log is not None:
            self._log.left(self._counts[_ALL] if self._places is None else self._places.total)


#: The permit of every connection to a server without limits.
UNLIMITED = Permit(Counter(), None, None, refused=False)


class Admission:
    """Counts connections if ``options`` limits their number."""

    def __init__(self, options: Options) -> None:
        self._total = options.max_connections
        self._each = options.max_connections_per_address
        self._log = None if self._total is None else LimitLog("max_connections", self._total)
        self._admitted: Counter[object] = Counter()
        self._refused: Counter[object] = Counter()
        #: Counts the total, if that is the one of several processes.
        self.places: Places | None = None

    def is_full(self, address: object) -> bool:
        """Whether a connection from ``address`` is above a limit."""
        if self._total is not None and self.places is None and self._admitted[_ALL] >= self._total:
            return True
        return self._each_is_full(address_key(address))

    def _each_is_full(self, key: object) -> bool:
        return self._each is not None and key is not None and self._admitted[key] >= self._each

    def makes_room(self, permit: Permit, address: object) -> bool:
        """Whether the end of the connection with ``permit`` admits one from ``address``, which is above a limit."""
        key = address_key(address)
        return not permit.refused and (permit._key == key or not self._each_is_full(key))

    def admit(self, address: object) -> Permit | None:
        """Return a permit for a connection from ``address``; None to close it without an answer.

        With ``places``, it is None, and :meth:`ask` says whether the connection has one.
        """
        if self._total is None and self._each is None:
            return UNLIMITED
        if self.places is not None:
            return None
        key = address_key(address)
        full = self._total is not None and self._admitted[_ALL] >= self._total
        if full and self._log is not None:
            self._log.refused()
        if full or self._each_is_full(key):
            return self._refuse(key)
        return self._enter(Permit(self._admitted, key, self._log, refused=False))

    async def ask(
        self, places: Places, address: object, make_room: Callable[[object], bool]
    ) -> Permit | None:
        """As :meth:`admit`, when ``places`` has answered. ``make_room`` is called if none is free."""
        key = address_key(address)
        if self._each_is_full(key):
            return self._refuse(key)
        has_place = await places.take() or (make_room(address) and await places.take())
        assert self._log is not None
        assert self._total is not None
        if not has_place:
            if places.total >= self._total:  # otherwise the bus is away, which it logs
                self._log.refused()
            return self._refuse(key)
        if self._each_is_full(key):  # another connection from there has waited, too
            places.give()
            return self._refuse(key)
        self._log.left(places.total)
        return self._enter(Permit(self._admitted, key, self._log, refused=False, places=places))

    def _refuse(self, key: object) -> Permit | None:
        if self._refused[_ALL] >= REFUSALS:
            return None
        return self._enter(Permit(self._refused, key, None, refused=True))

    def _enter(self, permit: Permit) -> Permit:
        permit._counts[_ALL] += 1
        permit._counts[permit._key] += 1
        return permit


def address_key(address: object) -> object:
    """Return the key of an address; None for a Unix socket, whose peers are all on this machine."""
    if not isinstance(address, tuple):
        return None
    host: str = address[0]
    if ":" not in host:
        return host
    octets = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    # A socket for both versions, such as one from systemd, has IPv4 clients at mapped addresses, and so has a
    # proxy with such a socket. These would all be in one /64.
    if octets.startswith(MAPPED):
        return socket.inet_ntop(socket.AF_INET, octets[len(MAPPED) :])
    # RFC 6177 §2 gives a site at least a /64, and one attacker may own all of its addresses.
    return octets[:8]
