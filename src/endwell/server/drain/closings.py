"""Closes connections at scheduled times, each as soon as its handler is idle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf

from ...aio.quiescence import Quiescence
from ...aio.websocket import WebSocket, messages_consumed, quiesce
from ...ending import Ending

__all__ = ["Closings"]

#: If nothing arrives for this number of seconds, about a round trip, then no message is in transit.
QUIET = 0.25


class Closings:
    """Calls ``close(ws)`` once for each scheduled connection that is still open, when no message would be lost.

    That is as soon as the connection is due, its handler waits for a message, and none has arrived. A
    connection whose handler stays busy for ``busy_time`` seconds is closed, too. After half of that time,
    reading from the peer is paused, because the handler may be busy only because the next message is always
    there. ``close`` sends the Close. The caller reads the clock.
    """

    def __init__(self, busy_time: float, close: Callable[[WebSocket], object]) -> None:
        self._busy_time = busy_time
        self._close = close
        self._scheduled: deque[tuple[float, WebSocket]] = deque()
        # Connections that are due, but whose handler is busy. At the time in `_busy`, reading from the peer
        # is paused; at the time in `_last_calls`, the connection is closed.
        self._busy: deque[tuple[float, WebSocket]] = deque()
        self._last_calls: deque[tuple[float, WebSocket]] = deque()
        self._quiescence: dict[WebSocket, Quiescence] = {}
        self._consumed_at_close: dict[WebSocket, int] = {}
        #: Number of connections that were closed although their handler was busy.
        self.last_called = 0
        #: Number of messages that handlers received after the Close was sent.
        self.unanswered = 0

    def schedule(self, moment: float, ws: WebSocket) -> None:
        """Close ``ws`` from ``moment`` on. The moments of successive calls ascend."""
        self._scheduled.append((moment, ws))

    @property
    def all_begun(self) -> bool:
        """Whether the time of each scheduled connection has come."""
        return not self._scheduled

    def close_due(self, now: float) -> float:
        """Process the connections that are due; returns the next time at which one is due."""
        while self._scheduled and self._scheduled[0][0] <= now:
            moment, ws = self._scheduled.popleft()
            if ws.is_open:
                quiet = min(QUIET, self._busy_time / 4)
                self._quiescence[ws] = quiesce(ws, partial(self.close, ws), quiet)
                self._busy.append((moment + self._busy_time / 2, ws))
        while self._busy and self._busy[0][0] <= now:
            moment, ws = self._busy.popleft()
            if ws.is_open:
                self._last_calls.append((moment + self._busy_time / 2, ws))
                self._quiescence[ws].stop_reading()
        while self._last_calls and self._last_calls[0][0] <= now:
            _, ws = self._last_calls.popleft()
            if ws.is_open:
                self.last_called += 1
            self.close(ws)
        queues = (self._scheduled, self._busy, self._last_calls)
        return min([inf, *(queue[0][0] for queue in queues if queue)])

    def close(self, ws: WebSocket) -> None:
        """Close ``ws`` now, if it is open."""
        if ws.is_open:
            self._consumed_at_close[ws] = messages_consumed(ws)
            self._close(ws)

    def ended(self, ws: WebSocket, ending: Ending) -> None:
        """A scheduled connection has ended."""
        if (quiescence := self._quiescence.pop(ws, None)) is not None:
            quiescence.stop()
        if (consumed := self._consumed_at_close.pop(ws, None)) is not None:
            self.unanswered += ending.messages_in - consumed

    def cancel(self) -> None:
        """Leave the connections open that are not closed yet.

        Those from which nothing is read any more are closed now.
        """
        for queue in (self._scheduled, self._busy, self._last_calls):
            queue.clear()
        for ws, quiescence in self._quiescence.items():
            quiescence.stop()
            if quiescence.reading_stopped:
                self.close(ws)
        self._quiescence.clear()
