"""How many connections a server takes, in all and from one address."""

from __future__ import annotations

import logging
import socket
from collections import Counter

from ..options import Options

__all__ = ["UNLIMITED", "Admission", "LimitLog", "Permit"]

logger = logging.getLogger("endwell.server")

#: Connections above a limit that are told so at the same time. More are cut without a
#: word, because each of them is a connection too.
REFUSALS = 64

#: Stands for every address.
_ALL = object()


class LimitLog:
    """Logs that a limit is reached, and that it no longer is: one line each, however many are refused meanwhile."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        # It is over at nine tenths, so that one that comes and goes at the limit does not fill the log.
        self._over = min(limit - 1, limit * 9 // 10)
        self._refused = 0

    def refused(self) -> None:
        """One was refused, because the limit is reached."""
        self._refused += 1
        if self._refused == 1:
            logger.warning("%s (%d) is reached: more are refused with 503", self._name, self._limit)

    def left(self, count: int) -> None:
        """One has gone; ``count`` are left."""
        if self._refused and count <= self._over:
            logger.warning(
                "%s (%d) is no longer reached; refused meanwhile: %d", self._name, self._limit, self._refused
            )
            self._refused = 0


class Permit:
    """What one connection takes up, from the moment it is accepted to its end."""

    __slots__ = ("_counts", "_key", "_log", "refused")

    def __init__(self, counts: Counter[object], key: object, log: LimitLog | None, refused: bool) -> None:
        self._counts = counts
        self._key = key
        self._log = log
        #: Whether the connection is above a limit, and there only to be told.
        self.refused = refused

    def leave(self, *_: object) -> None:
        """The connection has ended."""
        for key in (_ALL, self._key):
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
        if self._log is not None:
            self._log.left(self._counts[_ALL])


#: That of every connection to a server without limits.
UNLIMITED = Permit(Counter(), None, None, refused=False)


class Admission:
    """Counts connections where ``options`` has a limit for them."""

    def __init__(self, options: Options) -> None:
        self._total = options.max_connections
        self._each = options.max_connections_per_address
        self._log = None if self._total is None else LimitLog("max_connections", self._total)
        self._taken: Counter[object] = Counter()
        self._refused: Counter[object] = Counter()

    def admit(self, address: object) -> Permit | None:
        """A place for a connection from ``address``; None if it is not even to be told that there is none."""
        if self._total is None and self._each is None:
            return UNLIMITED
        key = _site(address)
        full = self._total is not None and self._taken[_ALL] >= self._total
        if full and self._log is not None:
            self._log.refused()
        if full or (self._each is not None and key is not None and self._taken[key] >= self._each):
            if self._refused[_ALL] >= REFUSALS:
                return None
            return _permit(self._refused, key, None, refused=True)
        return _permit(self._taken, key, self._log, refused=False)


def _permit(counts: Counter[object], key: object, log: LimitLog | None, refused: bool) -> Permit:
    counts[_ALL] += 1
    counts[key] += 1
    return Permit(counts, key, log, refused)


def _site(address: object) -> object:
    """Whom an address stands for; None for a Unix socket, where everybody is this machine."""
    if not isinstance(address, tuple):
        return None
    host: str = address[0]
    # RFC 6177 §2 gives a site at least a /64: one attacker may have all of its addresses.
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8] if ":" in host else host
