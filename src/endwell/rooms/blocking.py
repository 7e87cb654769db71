"""Rooms for threads, such as those of plain handlers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..aio.broadcast import Slow
from ..sync.websocket import WebSocket
from ..wire.codec import Buffer
from .members import Receipt
from .membership import Membership
from .position import Fresh, Gap, Position, Publication, Resumed
from .present import Info, Present
from .room import Room

if TYPE_CHECKING:
    from .registry import Registry

__all__ = ["BlockingMembership", "BlockingRoom", "BlockingRooms"]

T = TypeVar("T")


class BlockingMembership:
    """One connection in a room. :meth:`BlockingRoom.join` returns it; ``with membership:`` leaves at the end."""

    __slots__ = ("_membership", "room")

    def __init__(self, room: BlockingRoom, membership: Membership) -> None:
        #: The room.
        self.room = room
        self._membership = membership

    @property
    def ws(self) -> WebSocket:
        """The WebSocket that was given to :meth:`BlockingRoom.join`."""
        ws: WebSocket = self._membership.ws
        return ws

    @property
    def key(self) -> str | None:
        """See :attr:`Membership.key`."""
        return self._membership.key

    @property
    def info(self) -> Info:
        """See :attr:`Membership.info`."""
        return self._membership.info

    @property
    def missed(self) -> int:
        """See :attr:`Membership.missed`."""
        return self._membership.missed

    @property
    def arrived(self) -> Fresh | Resumed | Gap:
        """See :attr:`Membership.arrived`."""
        return self._membership.arrived

    @property
    def position(self) -> Position | None:
        """See :attr:`Membership.position`."""
        return self.room._run(self._position)

    def leave(self) -> None:
        """Leave the room. Without effect after the member has left."""
        self.room._run(self._leave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    async def _position(self) -> Position | None:
        return self._membership.position

    async def _leave(self) -> None:
        self._membership.leave()


class BlockingRoom:
    """A :class:`Room` for threads. ``server.rooms.blocking[name]`` returns it.

    Example:
        ```python
        import endwell
        from endwell.sync import connect, serving

        server = endwell.Server()

        @server.websocket("/chat/{name}")
        def chat(ws, name):
            room = server.rooms.blocking[name]
            with room.join(ws):
                for message in ws:
                    room.publish(message)

        with serving(server, port=0):
            with connect(f"ws://127.0.0.1:{server.port}/chat/lobby") as ws:
                ws.send("hello")
                print(ws.recv())  # hello
        ```
    """

    def __init__(self, room: Room) -> None:
        self._room = room

    @property
    def name(self) -> str:
        """The name."""
        return self._room.name

    def join(
        self, ws: WebSocket, /, *, since: Position | str | None = None, key: str | None = None, **info: Any
    ) -> BlockingMembership:
        """See :meth:`Room.join`. The member leaves at the end of a ``with`` block, or with its connection."""
        return BlockingMembership(self, self._run(self._join, ws, since, key, info))

    def leave(self, ws: WebSocket) -> None:
        """See :meth:`Room.leave`."""
        self._run(self._leave, ws)

    def publish(
        self, message: str | Buffer, *, exclude: WebSocket | None = None, slow: Slow = "skip"
    ) -> Receipt:
        """See :meth:`Room.publish`."""
        return self._run(self._publish, message, exclude, slow)

    def position(self) -> Position:
        """See :meth:`Room.position`."""
        return self._run(self._room.position)

    def history(self, since: Position | str | None = None, limit: int | None = None) -> list[Publication]:
        """See :meth:`Room.history`."""
        return self._run(self._room.history, since, limit)

    def presence(self) -> list[Present]:
        """See :meth:`Room.presence`."""
        return self._run(self._room.presence)

    def _run(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        return self._room._registry.portal.run(function, *args)

    async def _join(
        self, ws: WebSocket, since: Position | str | None, key: str | None, info: Info
    ) -> Membership:
        return await self._room.join(ws, since=since, key=key, **info)

    async def _leave(self, ws: WebSocket) -> None:
        self._room.leave(ws)

    async def _publish(self, message: str | Buffer, exclude: WebSocket | None, slow: Slow) -> Receipt:
        return await self._room.publish(message, exclude=exclude, slow=slow)


class BlockingRooms:
    """The rooms of a server, for threads. :attr:`Rooms.blocking` returns it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __getitem__(self, name: str) -> BlockingRoom:
        """The room of this name.

        Raises:
            TypeError: The name is not a ``str``.
            RoomLimit: The name is empty, or longer than ``max_name``.
            ValueError: The name contains a lone surrogate.
        """
        self._registry.check_name(name)
        return BlockingRoom(self._registry.room(name))

    def user(self, key: Any) -> BlockingRoom:
        """See :meth:`Rooms.user`.

        Raises:
            TypeError: The key is not a ``str``, an ``int`` or a tuple of these.
            RoomLimit: The key is too long.
        """
        return BlockingRoom(self._registry.user(key))
