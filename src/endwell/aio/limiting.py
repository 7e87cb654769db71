"""The limiter of a connection: which of its buckets other connections share."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

from ..http import Request
from ..limit import Limit, check_limits
from ..protocol.limiter import Bucket, Limiter, shared_bucket
from .admission import address_key
from .bind import MAX_LOGGED, format_peer

__all__ = ["bucket_of", "limiter_of"]

logger = logging.getLogger("endwell.server")


def limiter_of(limits: Limit | Sequence[Limit], request: Request, address: object, now: float) -> Limiter:
    """Return the limiter of a connection from ``address``."""

    def on_drop() -> None:
        # Without the query, because it may contain a token.
        path = request.raw_path[:MAX_LOGGED]
        logger.info("dropping messages of %s on %r: they are above its limit", format_peer(address), path)

    return Limiter([bucket_of(limit, request, address, now) for limit in check_limits(limits)], on_drop)


def bucket_of(limit: Limit, request: Request, address: object, now: float) -> Bucket:
    """Return the bucket of ``limit`` for a request from ``address``."""
    key: Hashable = None
    if callable(limit.key):
        key = limit.key(request)
    elif limit.key == "address":
        key = address_key(address)
    return Bucket(limit) if key is None else shared_bucket(limit, key, now)
