"""One message for many connections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..ending import Cause
from ..wire.codec import Buffer, Codec
from .stream import Stream
from .syscalls import monotonic
from .websocket import WebSocket

__all__ = ["BroadcastReport", "Slow", "broadcast"]

#: What to do about a connection whose peer is slow.
Slow = Literal["skip", "close", "queue"]


@dataclass(frozen=True, slots=True)
class BroadcastReport:
    """What became of a broadcast; all of these together are the connections that were given, as they were given."""

    #: How many connections took the message.
    sent: int
    #: Those that were slow, and so were skipped, closed, or have it in their queue.
    slow: tuple[Any, ...]
    #: How many were closing, or had ended.
    gone: int
    #: Of a binary message, those that cannot get it: hixie-75 and -76 have only text.
    unsupported: tuple[Any, ...] = ()


def broadcast(connections: Iterable[WebSocket], message: str | Buffer, slow: Slow) -> BroadcastReport:
    """See :meth:`endwell.Server.broadcast`."""
    if slow not in ("skip", "close", "queue"):
        raise ValueError(f"slow must be 'skip', 'close' or 'queue', not {slow!r}")
    everybody = _snapshot(connections)
    frames: dict[object, bytes] = {}
    # Before anything is sent, and also if nobody is there, this raises for what is no message.
    Codec(client=False).message(message)
    now = monotonic()
    gone = 0
    lagging: list[WebSocket] = []
    unable: list[WebSocket] = []
    binary = not isinstance(message, str)
    corked: list[Stream] = []
    try:
        for ws in everybody:
            core, stream = ws._core, ws._stream
            if binary and core.is_open and not core.takes_binary():
                unable.append(ws)
                continue
            # A send() that waits has the next place in the queue.
            if core.is_open and (ws._queued or stream.exceeds(ws._write_limit)):
                # Unless this is how it turned out that the peer is gone.
                if core.is_open:
                    lagging.append(ws)
            else:
                frame = core.share(message, frames, now)
                if frame is not None and stream.push(frame):
                    corked.append(stream)
            gone += not core.is_open
    finally:
        if corked:
            # One call for all of them; the others had one coming.
            corked[0].loop.call_soon(_uncork, corked)
    if slow != "skip":
        _treat(lagging, message, frames, slow == "close")
    sent = len(everybody) - len(lagging) - len(unable) - gone
    return BroadcastReport(sent, tuple(lagging), gone, tuple(unable))


def _snapshot(connections: Iterable[WebSocket]) -> list[WebSocket]:
    if not isinstance(connections, Iterable):
        raise TypeError(f"connections must be an iterable of WebSocket, not {type(connections).__name__}")
    everybody = list(connections)
    for ws in everybody:
        if not isinstance(ws, WebSocket):
            raise TypeError(f"connections must be an iterable of WebSocket, and has a {type(ws).__name__}")
    if everybody:
        # Of one: they belong to one loop.
        everybody[0]._guard("broadcast")
    return everybody


def _treat(
    lagging: list[WebSocket],
    message: str | Buffer,
    frames: dict[object, bytes],
    close: bool,
) -> None:
    cause, now = Cause.SLOW_PEER, monotonic()
    for ws in lagging:
        core, stream = ws._core, ws._stream
        if close:
            core.close(cause.close_code, cause.meaning, now, cause)
        elif (frame := core.share(message, frames, now)) is not None:
            core.outbox.append(frame)
        # Not now: what is told of an ending may broadcast as well.
        stream.loop.call_soon(stream.settle)


def _uncork(streams: list[Stream]) -> None:
    for stream in streams:
        stream.uncork()
