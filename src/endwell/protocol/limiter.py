"""Token buckets: how fast messages may come. Times are seconds on a monotonic clock.

A bucket is the generic cell rate algorithm (ITU-T I.371), which needs one number: the time at which the bucket will
be full again. A message that comes moves it by ``interval``. The bucket is empty if it is ``depth`` seconds away.

``depth`` is compared with differences of times, never added to one: a monotonic clock that has run for days is so
large that the sum would lose the digits by which a full bucket has room for a message.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from math import ceil
from typing import Any

from ..advice import MAX_SECONDS, RetryAdvice
from ..limit import Limit
from ..wire.codec import MAX_MESSAGES
from ..wire.payload import total
from .deadline import NEVER

__all__ = ["Bucket", "Limiter", "forget_buckets", "shared_bucket"]

#: Seconds whose messages are let through together after a pause, at most ``burst``. The bytes that wait are copied
#: each time, so resuming for each message would cost more than the messages.
_RESUMPTION = 0.25
#: Relative error of the sums of floats: a message that fits exactly must fit.
_EPSILON = 1e-9
#: The same, above the error of the clock: after a pause, there is room for a message.
_ROUNDING = 1e-6
_MANY = float(MAX_MESSAGES)
#: Number of buckets that are examined for an unused one, when there are too many.
_EXAMINED = 16

_WAIT, _DROP, _CLOSE = 0, 1, 2
_EXCESS = {"wait": _WAIT, "drop": _DROP, "close": _CLOSE}


class Bucket:
    """The bucket of one connection, or of all connections with the same key."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.excess = _EXCESS[limit.excess]
        # Without messages, there is always room: an endless depth times any rate.
        self._interval, self._depth, self._rate, self._resumption = 0.0, NEVER, 1.0, 0.0
        if limit.messages is not None:
            self._interval, self._rate = limit.per / limit.messages, limit.messages / limit.per
            self._depth = _depth(self._interval, limit.burst or limit.messages)
            self._resumption = _resumption(self._interval, self._depth)
        self._byte_interval, self._byte_depth, self._byte_resumption = 0.0, NEVER, 0.0
        if limit.bytes is not None:
            self._byte_interval = limit.per / limit.bytes
            self._byte_depth = _depth(self._byte_interval, limit.burst_bytes or limit.bytes)
            self._byte_resumption = _resumption(self._byte_interval, self._byte_depth)
        # The bucket is empty while it is full again only after this number of seconds: of messages, of bytes.
        self._limit, self._byte_limit = self._depth - self._interval, self._byte_depth - self._byte_interval
        # When the bucket is full again: of messages, of bytes.
        self._full_at = self._bytes_full_at = -NEVER

    def fits(self, count: int, size: int, now: float) -> bool:
        """Whether the bucket has enough for ``count`` messages with ``size`` bytes."""
        if max(self._full_at - now, 0.0) + count * self._interval > self._depth:
            return False
        return max(self._bytes_full_at - now, 0.0) + size * self._byte_interval <= self._byte_depth

    def take(self, count: int, size: int, now: float) -> bool:
        """Take ``count`` messages with ``size`` bytes, even if the bucket has less. Return whether it is empty."""
        self._full_at = max(self._full_at, now) + count * self._interval
        self._bytes_full_at = max(self._bytes_full_at, now) + size * self._byte_interval
        return self._full_at - now > self._limit or self._bytes_full_at - now > self._byte_limit

    def room(self, now: float) -> float:
        """The number of messages for which the bucket has enough, with a fraction; at most ``MAX_MESSAGES``."""
        if self._bytes_full_at - now > self._byte_limit:
            return 0.0
        room = self._depth
        if self._full_at > now:
            room -= self._full_at - now
        room *= self._rate
        return min(_MANY, room)

    def ready_at(self) -> float:
        """When messages can come again after the bucket was empty."""
        ready = self._full_at + self._resumption - self._depth
        return max(ready, self._bytes_full_at + self._byte_resumption - self._byte_depth)

    def full_at(self) -> float:
        """When the bucket is full."""
        return max(self._full_at, self._bytes_full_at)


def _depth(interval: float, burst: int) -> float:
    return burst * interval * (1 + _EPSILON)


def _resumption(interval: float, depth: float) -> float:
    """Seconds of refilling after which reading resumes."""
    return min(max(interval * (1 + _ROUNDING), _RESUMPTION), depth)


class Limiter:
    """The limits of one connection: ``buckets``, some of which other connections share.

    ``on_drop()`` is called once, when the first message is dropped.
    """

    def __init__(self, buckets: list[Bucket], on_drop: Callable[[], object] | None = None) -> None:
        self._buckets = buckets
        self._on_drop = on_drop
        # The only bucket, if there is one, and its excess waits: the most frequent case.
        self._single = buckets[0] if len(buckets) == 1 and buckets[0].excess == _WAIT else None
        #: Whether one of the limits is a limit of bytes.
        self.counts_bytes = any(bucket.limit.bytes is not None for bucket in buckets)
        #: When reading may resume, if it has to pause; otherwise 0.0.
        self.paused_until = 0.0
        #: The bucket that closes the connection.
        self.closing: Bucket | None = None

    def room(self, now: float) -> float:
        """The number of messages that may be parsed now, with a fraction; less than 1 if there is none."""
        if self._single is not None:
            # The same as Bucket.room(). Without a local name for the bucket, Cython counts no references.
            if self._single._bytes_full_at - now > self._single._byte_limit:
                return 0.0
            room = self._single._depth
            if self._single._full_at > now:
                room -= self._single._full_at - now
            room *= self._single._rate
            return min(_MANY, room)
        return self._room_of_all(now)

    def _room_of_all(self, now: float) -> float:
        room = _MANY
        for bucket in self._buckets:
            if bucket.excess == _WAIT:
                room = min(room, bucket.room(now))
        return room

    def passes(self, count: int, size: int, now: float) -> bool:
        """Count ``count`` messages with ``size`` bytes, if that is all there is to do. Otherwise, :meth:`admit` must.

        Each read takes this path while messages do not come too fast. ``size`` has no effect unless
        ``counts_bytes``.
        """
        if self._single is None:
            return False
        full_at = max(now, self._single._full_at)
        full_at += count * self._single._interval
        if full_at - now > self._single._limit:
            return False
        if self.counts_bytes:
            bytes_full_at = max(now, self._single._bytes_full_at)
            bytes_full_at += size * self._single._byte_interval
            if bytes_full_at - now > self._single._byte_limit:
                return False
            self._single._bytes_full_at = bytes_full_at
        self._single._full_at = full_at
        return True

    def admit(self, messages: list[Any], first: int, now: float) -> None:
        """Count the messages from index ``first`` on, and remove those that are in excess.

        Then ``paused_until`` and ``closing`` are set.
        """
        count, size = len(messages) - first, 0
        if self.counts_bytes:
            size = total(messages, first)
        self.paused_until = 0.0
        if self._single is not None:
            if self._single.take(count, size, now):
                self.paused_until = self._single.ready_at()
            return
        for bucket in self._buckets:
            if bucket.excess == _WAIT or bucket.fits(count, size, now):
                bucket.take(count, size, now)
            else:
                count, size = self._remove_excess(bucket, messages, first, now)
            if bucket.excess == _WAIT and bucket.room(now) < 1:
                self.paused_until = max(self.paused_until, bucket.ready_at())

    def _remove_excess(self, bucket: Bucket, messages: list[Any], first: int, now: float) -> tuple[int, int]:
        """Keep the messages that fit into ``bucket``. Return their number and their bytes."""
        kept, size = first, 0
        for at in range(first, len(messages)):
            message = messages[at]
            if bucket.fits(1, len(message), now):
                bucket.take(1, len(message), now)
                size += len(message)
                messages[kept] = message
                kept += 1
            elif bucket.excess == _CLOSE:
                self.closing = bucket
                break
        if self._on_drop is not None and kept < len(messages) and bucket.excess == _DROP:
            on_drop, self._on_drop = self._on_drop, None
            on_drop()
        del messages[kept:]
        return kept - first, size

    def reason(self, now: float) -> str:
        """The reason of the Close for :attr:`closing`, with the advice to come back when the bucket is full."""
        assert self.closing is not None
        seconds = min(max(1, ceil(self.closing.full_at() - now - _ROUNDING)), MAX_SECONDS // 2)
        return RetryAdvice(seconds, 2 * seconds).reason("messages came faster than allowed")


def shared_bucket(limit: Limit, key: Hashable, now: float) -> Bucket:
    """Return the bucket of ``limit`` for ``key``. There are at most ``limit.max_keys``."""
    shared = limit._shared
    bucket: Bucket | None = shared.pop(key, None)
    if bucket is None:
        if len(shared) >= limit.max_keys:
            del shared[_least_needed(shared, now)]
        bucket = Bucket(limit)
    shared[key] = bucket
    return bucket


def forget_buckets(limits: Iterable[Limit]) -> None:
    """Forget the buckets that connections share, so that each key has a full one.

    A server does so when it begins to serve. The clock of its event loop may be another than that of the buckets: each
    virtual clock of a test begins at the same time.
    """
    for limit in limits:
        limit._shared.clear()


def _least_needed(shared: dict[Hashable, Any], now: float) -> Hashable:
    """The first of the oldest keys whose bucket is full, so that a new one is the same; otherwise the oldest."""
    oldest: Hashable = None
    for number, (key, bucket) in enumerate(shared.items()):
        if bucket.full_at() <= now:
            return key
        if number == 0:
            oldest = key
        elif number == _EXAMINED:
            break
    return oldest
