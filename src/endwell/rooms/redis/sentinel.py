"""Which server is the primary: the Sentinels are asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from redis.exceptions import RedisError

from ..stalls import timeout_without_stalls
from .place import Place, ask

__all__ = ["WATCH_INTERVAL", "primary"]

#: Maximum seconds for the answer of a Sentinel.
ANSWER_TIME = 1.0
#: Seconds between two questions while connected: a network may separate this process and the primary from the
#: Sentinels, which make another server the primary.
WATCH_INTERVAL = 5.0


async def primary(place: Place) -> tuple[str, int] | None:
    """The address of the primary that most Sentinels name; None if the place has no Sentinels.

    One of them may be separated from the others, and not know of a failover.

    Raises:
        OSError: No Sentinel answers.
    """
    if not place.sentinels:
        return None
    answers = await asyncio.gather(*(_ask(each, place.service) for each in place.sentinels))
    known = Counter(each for each in answers if isinstance(each, tuple))
    if not known:
        reasons = "; ".join(
            f"{each.address}: {why}" for each, why in zip(place.sentinels, answers, strict=True)
        )
        raise OSError(f"no Sentinel knows the primary of {place.service!r} ({reasons})")
    return known.most_common(1)[0][0]


async def _ask(sentinel: Place, service: str) -> tuple[str, int] | str:
    connection: Any = sentinel.connection()
    try:
        async with timeout_without_stalls(ANSWER_TIME):
            await connection.connect()
            reply = await ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
    except (RedisError, OSError, EOFError, TimeoutError) as error:
        return str(error) or "it does not answer"
    finally:
        if connection._writer is not None:
            connection._writer.transport.abort()
            connection._writer = connection._reader = None
    return "it does not know this service" if reply is None else (reply[0].decode(), int(reply[1]))
