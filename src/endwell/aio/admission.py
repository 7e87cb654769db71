"""Limits for the connections of a server: in total and for each address."""

from __future__ import annotations

import logging
import socket
from collections import Counter

from ..options import Options

__all__ = ["UNLIMITED", "Admission", "LimitLog", "Permit", "address_key"]

logger = logging.getLogger("endwell.server")

#: Connections above a limit that get a 503 at the same time. Further ones are closed without an
#: answer, because each answer occupies a connection too.
REFUSALS = 64

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
        """Note that a connection has ended and ``count`` remain."""
        if self._refused and count <= self._over:
            logger.warning(
                "%s (%d) is no longer reached; refused meanwhile: %d", self._name, self._limit, self._refused
            )
            self._refused = 0


class Permit:
    """The share of one connection in the counts, from accept to its end."""

    __slots__ = ("_counts", "_key", "_log", "refused")

    def __init__(self, counts: Counter[object], key: object, log: LimitLog | None, refused: bool) -> None:
        self._counts = counts
        self._key = key
        self._log = log
        #: Whether the connection is above a limit and only gets a 503.
        self.refused = refused

    def leave(self, *_: object) -> None:
        """Release the share: the connection has ended."""
        for key in (_ALL, self._key):
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
        if self._log is not None:
            self._log.left(self._counts[_ALL])


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

    def is_full(self, address: object) -> bool:
        """Whether a connection from ``address`` is above a limit."""
        if self._total is not None and self._admitted[_ALL] >= self._total:
            return True
        return self._each_is_full(address_key(address))

    def _each_is_full(self, key: object) -> bool:
        return self._each is not None and key is not None and self._admitted[key] >= self._each

    def makes_room(self, permit: Permit, address: object) -> bool:
        """Whether the end of the connection with ``permit`` admits one from ``address``, which is above a limit."""
        key = address_key(address)
        return not permit.refused and (permit._key == key or not self._each_is_full(key))

    def admit(self, address: object) -> Permit | None:
        """Return a permit for a connection from ``address``; None to close it without an answer."""
        if self._total is None and self._each is None:
            return UNLIMITED
        key = address_key(address)
        full = self._total is not None and self._admitted[_ALL] >= self._total
        if full and self._log is not None:
            self._log.refused()
        if full or self._each_is_full(key):
            if self._refused[_ALL] >= REFUSALS:
                return None
            return _permit(self._refused, key, None, refused=True)
        return _permit(self._admitted, key, self._log, refused=False)


def _permit(counts: Counter[object], key: object, log: LimitLog | None, refused: bool) -> Permit:
    counts[_ALL] += 1
    counts[key] += 1
    return Permit(counts, key, log, refused)


def address_key(address: object) -> object:
    """Return the key of an address; None for a Unix socket, whose peers are all on this machine."""
    if not isinstance(address, tuple):
        return None
    host: str = address[0]
    # RFC 6177 §2 gives a site at least a /64, and one attacker may own all of its addresses.
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8] if ":" in host else host
