"""One connection in a room."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from ..aio.websocket import WebSocket
from ..sync.websocket import WebSocket as BlockingWebSocket
from ..sync.websocket import bridge_of
from .position import Fresh, Gap, Position, Resumed
from .present import Info

if TYPE_CHECKING:
    from .room import Room

__all__ = ["AnyWebSocket", "Joining", "Membership", "engine_of", "queue_staged"]

#: A WebSocket of endwell. Or an ASGI WebSocket on endwell: its scope, or an object that has it as ``scope``.
AnyWebSocket = Any


# One object for all members, because a room may have many.
NO_INFO: Info = MappingProxyType({})
FRESH = Fresh()


def engine_of(ws: AnyWebSocket, name: str = "ws") -> WebSocket:
    """The asyncio WebSocket below. ``name`` is that of the argument.

    Raises:
        TypeError: ``ws`` is something else.
        ValueError: ``ws`` is an ASGI WebSocket that is not accepted yet.
    """
    if isinstance(ws, WebSocket):
        return ws
    if isinstance(ws, BlockingWebSocket):
        return bridge_of(ws).ws
    scope: Any = getattr(ws, "scope", ws)
    try:
        engine: WebSocket | None = scope["extensions"]["endwell"]["websocket"]()
    except (KeyError, TypeError):
        raise TypeError(
            f"{name} must be a WebSocket of endwell, or an ASGI WebSocket that endwell serves, not {ws!r}"
        ) from None
    if engine is None:
        raise ValueError("an ASGI WebSocket must be accepted before it joins")
    return engine


class Membership:
    """One connection in a room. :meth:`Room.join` returns it.

    Example:
        ```python
        import endwell

        server = endwell.Server()

        @server.websocket("/chat/{name}")
        async def chat(ws, name):
            async with server.rooms[name].join(ws) as membership:
                await ws.send(f"you are at {membership.position}")
                async for message in ws:
                    await membership.room.publish(message)
        ```
    """

    __slots__ = ("_arrived", "_engine", "_named", "_number", "info", "key", "missed", "room", "ws")

    def __init__(self, room: Room, ws: AnyWebSocket, key: str | None, info: Info) -> None:
        #: The room.
        self.room = room
        #: The WebSocket that was given to :meth:`Room.join`.
        self.ws = ws
        #: The key of the member in :meth:`Room.presence`: the one that was given to :meth:`Room.join`. With other
        #: keyword arguments only, a key that no other connection has. Without any, None: it is not shown.
        self.key = key
        #: The other keyword arguments of :meth:`Room.join`.
        self.info: Info = info or NO_INFO
        self._number = 0
        if key is not None or info:
            self._number, own = room._registry.new_key()
            self.key = own if key is None else key
        #: Number of publications that this member was not sent, because it was slow, or because its old protocol
        #: has no binary messages.
        self.missed = 0
        self._engine = engine_of(ws)
        self._named = key is not None
        self._arrived: Fresh | Resumed | Gap = FRESH

    @property
    def arrived(self) -> Fresh | Resumed | Gap:
        """What the member found when it joined.

        :class:`Fresh` without ``since``, :class:`Resumed` if it has missed nothing, otherwise :class:`Gap`.
        """
        return self._arrived

    @property
    def position(self) -> Position | None:
        """The position after the last publication that this member was sent.

        None after it has left, and while its connection is closing: it is not sent what is published then.
        """
        return self.room._position_of(self)

    def leave(self) -> None:
        """Leave the room. Without effect after the member has left.

        Raises:
            ConcurrencyError: This thread is not that of the event loop.
        """
        self._engine._guard("leave")
        self.room._leave(self, grace=0.0)


class Joining:
    """The result of :meth:`Room.join`: await it, or use it in ``async with``."""

    __slots__ = ("_join", "_membership")

    def __init__(self, join: Coroutine[Any, Any, Membership]) -> None:
        self._join = join
        self._membership: Membership | None = None

    def __await__(self) -> Generator[Any, Any, Membership]:
        return self._join.__await__()

    def __enter__(self) -> NoReturn:
        self._join.close()
        raise TypeError(
            "use 'async with room.join(ws)'; in a plain handler, 'with server.rooms.blocking[name].join(ws)'"
        )

    # Python looks for it before it calls __enter__.
    __exit__ = __enter__

    async def __aenter__(self) -> Membership:
        self._membership = await self
        return self._membership

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._membership is not None:
            self._membership.leave()


def queue_staged(membership: Membership) -> None:
    """Keep the order: messages that threads have sent before go out before the next one."""
    if isinstance(membership.ws, BlockingWebSocket):
        bridge_of(membership.ws).queue_staged()
