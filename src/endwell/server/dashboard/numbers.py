"""The numbers of the connections of a process, by which the operator names them."""

from __future__ import annotations

from itertools import count

from ...aio.websocket import WebSocket

__all__ = ["Numbers"]


class Numbers:
    """A connection gets its number when it is shown first, so that connections cost nothing before."""

    def __init__(self) -> None:
        self._next = count(1)
        self._numbers: dict[WebSocket, int] = {}
        self._connections: dict[int, WebSocket] = {}

    def of(self, ws: WebSocket) -> int:
        """The number of a connection that has not ended."""
        number = self._numbers.get(ws)
        if number is None:
            number = self._numbers[ws] = next(self._next)
            self._connections[number] = ws
        return number

    def find(self, number: int) -> WebSocket | None:
        """The connection with this number; None if it has ended."""
        return self._connections.get(number)

    def forget(self, ws: WebSocket) -> int:
        """A connection has ended. Returns its number."""
        number = self._numbers.pop(ws, None)
        if number is None:
            return next(self._next)
        del self._connections[number]
        return number
