"""Rate limits: the argument of :class:`Options` and of ``Server.rate_limit``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .http import Request

__all__ = ["Limit", "check_limits", "check_number"]

#: With larger numbers, the times that are computed from them could be infinite.
MAX_NUMBER = 1e15
#: The shortest ``per``, in seconds: the resolution of the clock.
MIN_PER = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit of what clients may send: a token bucket for messages, for bytes, or for both.

    A bucket that is full lets ``burst`` messages pass at once, and refills with ``messages`` in each ``per``
    seconds. What exceeds it waits, is dropped, or closes the connection.

    Connections with the same ``key`` share a bucket, as long as they have the same Limit object: use one object
    for several routes to limit them together. Each worker process has buckets of its own. They are full
    when a server begins to serve.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is out of range, neither ``messages`` nor ``bytes`` is given, or a burst is given
            without its number.

    Example:
        ```python
        import endwell

        server = endwell.Server(limits=endwell.Limit(messages=20, burst=40, key="address", excess="close"))
        ```
    """

    #: Number of messages in each ``per`` seconds; None: any number.
    messages: int | None = None
    #: Number of bytes of messages in each ``per`` seconds; None: any number. They are counted after
    #: decompression, and in text as characters. If the excess waits, one read of the socket may exceed the bucket by
    #: less than ``max_size`` + 256 KiB, with compression by less than 2 * ``max_size`` + 512 KiB, because the size of a
    #: message is known at its end. What follows waits longer, so that the rate holds.
    bytes: int | None = None
    #: Seconds. Default: 1.0.
    per: float = 1.0
    #: Number of messages that may come at once after a pause. Default: None, the same as ``messages``.
    burst: int | None = None
    #: The same for bytes. A message that is larger is always in excess. Default: None, the same as ``bytes``.
    burst_bytes: int | None = None
    #: Who shares a bucket: ``"connection"``, nobody; ``"address"``, the connections from an IPv4 address or an IPv6
    #: /64; or a function ``key(request)``, which must not block, and whose result is hashable. A result of None,
    #: and an address of a Unix socket: nobody. Default: ``"connection"``.
    key: Literal["connection", "address"] | Callable[[Request], Hashable] = "connection"
    #: What happens in excess. ``"wait"``: reading from the client pauses until the bucket has refilled, so that TCP
    #: holds the client back. ``"drop"``: the message is dropped, and counted in ``dropped_messages``.
    #: ``"close"``: Close 1008 with the time until the bucket is full again as advice; the cause is POLICY_LIMIT.
    excess: Literal["wait", "drop", "close"] = "wait"
    #: Maximum number of keys with a bucket. Above it, the bucket that was used by the oldest connection is
    #: forgotten. Default: 10,000, which take about 2 MB.
    max_keys: int = 10_000
    # The buckets of the keys, least recently used first.
    _shared: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.messages is None and self.bytes is None:
            raise ValueError("a Limit needs messages or bytes")
        for name in ("messages", "bytes", "burst", "burst_bytes", "max_keys"):
            check_number(name, getattr(self, name), int, none=name != "max_keys")
        for burst, name in (("burst", "messages"), ("burst_bytes", "bytes")):
            if getattr(self, burst) is not None and getattr(self, name) is None:
                raise ValueError(f"{burst} has no effect without {name}")
        check_number("per", self.per, int | float, none=False)
        if self.per < MIN_PER:
            raise ValueError(f"per must be at least {MIN_PER:g}, not {self.per!r}")
        if self.excess not in ("wait", "drop", "close"):
            raise ValueError(f"excess must be 'wait', 'drop' or 'close', not {self.excess!r}")
        if inspect.iscoroutinefunction(self.key):
            raise TypeError(f"key must be a plain function, not {self.key!r}")
        if not callable(self.key) and self.key not in ("connection", "address"):
            raise ValueError(f"key must be 'connection', 'address' or a function, not {self.key!r}")

    def __reduce__(self) -> tuple[Callable[[], Limit], tuple[()]]:
        # A copy has buckets of its own.
        arguments = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return partial(Limit, **arguments), ()


def check_limits(limits: Limit | Iterable[Limit]) -> tuple[Limit, ...]:
    """Return ``limits`` as a tuple. Raises TypeError for something else."""
    if not isinstance(limits, Limit | Iterable):
        raise TypeError(f"limits must be a Limit or several, not {limits!r}")
    checked = (limits,) if isinstance(limits, Limit) else tuple(limits)
    for each in checked:
        if not isinstance(each, Limit):
            raise TypeError(f"limits must be a Limit or several, not {each!r}")
    return checked


def check_number(name: str, value: Any, kind: Any, *, none: bool) -> None:
    """Raise unless ``value`` is a number of ``kind`` that a limit can have. ``none``: or None."""
    if value is None and none:
        return
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not 0 < value <= MAX_NUMBER:
        raise ValueError(f"{name} must be positive and at most {MAX_NUMBER:g}, not {value!r:.40}")
