"""The room of one user, whose current connection is its member."""

from __future__ import annotations

from ..aio.broadcast import Slow
from ..errors import ConnectionClosed
from ..wire.codec import Buffer
from .members import Receipt
from .membership import AnyWebSocket, engine_of
from .room import Room

__all__ = ["UserRoom"]


class UserRoom(Room):
    """The room of one user: see :meth:`Rooms.user`. The current connection of the user is a member.

    With a bus, it becomes one when it joins the sessions. Otherwise it does with the first publication. It is not
    closed if publications are lost, because most applications that have sessions publish nothing here.
    """

    async def publish(
        self, message: str | Buffer, *, exclude: AnyWebSocket | None = None, slow: Slow = "skip"
    ) -> Receipt:
        """See :meth:`Room.publish`."""
        self._registry.check()
        for ws in self._registry.connections_of(self):
            if self._members.get(engine_of(ws)) is None:
                await self.follow(ws)
        return await super().publish(message, exclude=exclude, slow=slow)

    async def follow(self, ws: AnyWebSocket) -> None:
        """Make the connection of the user a member, unless it is one or has ended. Raises BusUnavailable."""
        try:
            await self.join(ws)
        except (ConnectionClosed, ValueError):
            pass  # it is closing, or it is a member already
