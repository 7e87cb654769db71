"""The rate limits of a server: which buckets the connections share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from math import ceil
from typing import Literal, TypeAlias

from ..errors import TooManyRequests
from ..http import Request
from ..limit import Limit, check_limits, check_number
from ..protocol.limiter import Bucket, Limiter, shared_bucket
from .admission import address_key
from .bind import MAX_LOGGED, format_peer
from .callbacks import check_returned
from .syscalls import monotonic

__all__ = ["OpeningKey", "limiter_of", "opening_limit", "over_opening_limit"]

logger = logging.getLogger("endwell.server")

OpeningKey: TypeAlias = Literal["address", "server"] | Callable[[Request], Hashable]


def limiter_of(limits: Limit | Sequence[Limit], request: Request, address: object, now: float) -> Limiter:
    """Return the limiter of a connection from ``address``."""

    def on_drop() -> None:
        # Without the query, because it may contain a token.
        path = request.raw_path[:MAX_LOGGED]
        logger.info("dropping messages of %s on %r: they are above its limit", format_peer(address), path)

    return Limiter([_bucket_of(limit, request, address, now) for limit in check_limits(limits)], on_drop)


def opening_limit(connections: int, per: float, burst: int | None, key: OpeningKey) -> Limit:
    """A limit of how fast WebSockets open; the arguments are those of ``Server.rate_limit``.

    Raises TypeError and ValueError, which name the argument.
    """
    check_number("connections", connections, int, none=False)
    if not callable(key) and key not in ("address", "server"):
        raise ValueError(f"key must be 'address', 'server' or a function, not {key!r}")
    return Limit(messages=connections, per=per, burst=burst, key=_all if key == "server" else key)


def _all(_: Request) -> Hashable:
    return True


def over_opening_limit(limits: Sequence[Limit], request: Request, address: object) -> TooManyRequests | None:
    """Count a WebSocket that opens; or return its refusal, if it opens too soon after others.

    Raises what a key function raises.
    """
    now = monotonic()
    buckets = [_bucket_of(limit, request, address, now) for limit in limits]
    for bucket in buckets:
        if not bucket.fits(1, 0, now):
            seconds = max(1, ceil(bucket.ready_at() - now))
            return TooManyRequests("too many new connections", retry_after=seconds)
    for bucket in buckets:
        bucket.take(1, 0, now)
    return None


def _bucket_of(limit: Limit, request: Request, address: object, now: float) -> Bucket:
    """Return the bucket of ``limit`` for a request from ``address``."""
    key: Hashable = None
    if callable(limit.key):
        key = limit.key(request)
        # Each awaitable is a new object, so each connection would have a bucket of its own.
        check_returned(key, limit.key)
    elif limit.key == "address":
        key = address_key(address)
    return Bucket(limit) if key is None else shared_bucket(limit, key, now)
