"""Sending one message to many connections."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..ending import Cause, Close
from ..wire.codec import Buffer, Codec
from .driver import Driver
from .syscalls import monotonic
from .websocket import WebSocket

__all__ = ["BroadcastReport", "Slow", "broadcast", "check_slow", "deliver", "deliver_together"]

#: What a broadcast does with a connection whose send queue is full: see :meth:`endwell.Server.broadcast`.
Slow = Literal["skip", "close", "queue"]


@dataclass(frozen=True, slots=True)
class BroadcastReport:
    """The result of :meth:`Server.broadcast`. Each connection that was given is counted in exactly one field.

    Example:
        ```python
        import endwell

        server = endwell.Server()
        report = server.broadcast(server.connections, "hello")
        print(report.sent, len(report.slow), report.gone)
        ```
    """

    #: Number of connections that sent or queued the message in time.
    sent: int
    #: The connections that were slow. They were skipped or closed, or have the message in their queue.
    slow: tuple[Any, ...]
    #: Number of connections that were closing or had ended.
    gone: int
    #: For a binary message: the connections that cannot receive it, because hixie-75 and hixie-76 have only
    #: text. Default: empty.
    unsupported: tuple[Any, ...] = ()


_ONE = BroadcastReport(1, (), 0)


#: Maximum number of bytes before the payload of a frame, and for a character.
MAX_FRAME_HEAD = 14
MAX_UTF8 = 4


def check_slow(slow: Slow) -> None:
    """Raise ValueError for what is not a policy."""
    if slow not in ("skip", "close", "queue"):
        raise ValueError(f"slow must be 'skip', 'close' or 'queue', not {slow!r}")


def broadcast(connections: Iterable[WebSocket], message: str | Buffer, slow: Slow) -> BroadcastReport:
    """See :meth:`endwell.Server.broadcast`."""
    check_slow(slow)
    targets = _snapshot(connections)
    # Raises for an invalid message before anything is sent, also if there are no connections.
    Codec(client=False).message(message)
    return deliver(targets, message, slow)


def deliver(targets: list[WebSocket], message: str | Buffer, slow: Slow) -> BroadcastReport:
    """:func:`broadcast` with arguments that are valid, in the event loop of the connections."""
    frames: dict[object, bytes] = {}
    now = monotonic()
    gone = 0
    lagging: list[WebSocket] = []
    unable: list[WebSocket] = []
    binary = not isinstance(message, str)
    corked: list[Driver] = []
    try:
        for ws in targets:
            core, stream = ws._core, ws._stream
            if binary and core.is_open and not core.takes_binary():
                unable.append(ws)
                continue
            # A waiting send() has the next place in the queue.
            if core.is_open and (ws._queued or stream.exceeds(ws._write_limit)):
                # exceeds() may have found that the peer is gone.
                if core.is_open:
                    lagging.append(ws)
            else:
                frame = core.share(message, frames, now)
                if frame is not None and stream.push(frame):
                    corked.append(stream)
            gone += not core.is_open
    finally:
        if corked:
            # One callback for all of them. The other streams have a scheduled uncork already.
            corked[0].loop.call_soon(_uncork, corked)
    for ws in lagging:
        if ws._counter is not None:
            ws._counter.lagged(slow)
    if slow != "skip":
        _treat(lagging, message, frames, slow == "close")
    sent = len(targets) - len(lagging) - len(unable) - gone
    if sent == 1 and not (gone or lagging or unable):
        # A room has one member in many processes, and a report takes a third of the time of a delivery.
        return _ONE
    return BroadcastReport(sent, tuple(lagging), gone, tuple(unable))


def deliver_together(
    targets: list[WebSocket], messages: list[str | bytes], queues: bool, alone: bool
) -> tuple[BroadcastReport, list[WebSocket]]:
    """Send several messages, each connection all of them in one piece.

    Args:
        targets: The connections.
        messages: The messages, in order.
        queues: Whether a slow connection has them in its queue, and the report does not name it.
        alone: Whether nothing else is known to follow in this turn of the loop.

    Returns:
        The report of each of the messages, and the connections that are not in it: they may be slow, or have no
        binary messages, so :func:`deliver` must be called for each message.
    """
    frames: dict[object, bytes] = {}
    now = monotonic()
    sent = gone = 0
    others: list[WebSocket] = []
    corked: list[Driver] = []
    # What waits before the last of the messages, if the socket takes nothing.
    before, binary = 0, False
    for number, message in enumerate(messages):
        if not isinstance(message, str):
            binary = True
        if number:
            before += MAX_FRAME_HEAD + len(message) * (1 if binary or message.isascii() else MAX_UTF8)
    try:
        for ws in targets:
            core, stream = ws._core, ws._stream
            if (binary and not core.takes_binary()) or (
                not queues and (ws._queued or core.outbox.size + before > ws._write_limit)
            ):
                others.append(ws)
                continue
            frame = core.share_all(messages, frames, now)
            if frame is not None and (stream.push_last(frame) if alone else stream.push(frame)):
                corked.append(stream)
            if core.is_open:
                sent += 1
            else:
                gone += 1
    finally:
        if corked:
            corked[0].loop.call_soon(_uncork, corked)
    return _ONE if sent == 1 and not gone else BroadcastReport(sent, (), gone), others


def _snapshot(connections: Iterable[WebSocket]) -> list[WebSocket]:
    if not isinstance(connections, Iterable):
        raise TypeError(f"connections must be an iterable of WebSocket, not {type(connections).__name__}")
    targets = list(connections)
    for ws in targets:
        if not isinstance(ws, WebSocket):
            raise TypeError(f"connections must be an iterable of WebSocket, and has a {type(ws).__name__}")
    if targets:
        # One check suffices: all connections belong to one loop.
        targets[0]._guard("broadcast")
    return targets


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
            core.close(Close(cause.close_code, cause.meaning), now, cause)
        elif (frame := core.share(message, frames, now)) is not None:
            core.outbox.append(frame)
        # Not immediately, because callbacks of an ending may broadcast as well.
        stream.loop.call_soon(stream.settle)


def _uncork(streams: list[Driver]) -> None:
    for stream in streams:
        stream.uncork()
