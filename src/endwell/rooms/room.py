"""One room, as one process sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..aio.broadcast import Slow, check_slow
from ..aio.coroutines import refuse
from ..aio.waiters import Waiters
from ..aio.websocket import WebSocket
from ..errors import RoomLimit
from ..wire.codec import Buffer
from .bus import Arrival
from .keys import RESERVED
from .members import Call, Members, Receipt
from .membership import AnyWebSocket, Joining, Membership, engine_of
from .position import Gap, Position, Publication
from .present import Present
from .replay import replay
from .tail import Tail

if TYPE_CHECKING:
    from .registry import Registry

__all__ = ["Room"]

#: The numbers of Lua, which Redis runs, are exact up to this one. No history is as large.
MAX_LIMIT = 1 << 53


class Room:
    """A named group of connections, in all processes of a server. ``server.rooms[name]`` returns it.

    The publications of a room have numbers without holes. Each member gets them in this order, and none twice.

    Example:
        ```python
        import asyncio
        import endwell

        server = endwell.Server()

        @server.websocket("/chat/{name}")
        async def chat(ws, name):
            room = server.rooms[name]
            async with room.join(ws):
                async for message in ws:
                    await room.publish(message)

        async def main():
            async with server.serving(port=0):
                async with endwell.connect(f"ws://127.0.0.1:{server.port}/chat/lobby") as ws:
                    await ws.send("hello")
                    print(await ws.recv())  # hello

        asyncio.run(main())
        ```
    """

    def __init__(self, registry: Registry, name: str) -> None:
        #: The name.
        self.name = name
        self._registry = registry
        self._options = registry.options_for(name)
        self._members = Members()
        #: Members, and calls of join() in progress. While there are any, this process listens to the room.
        self._users = 0
        self._listening: asyncio.Future[Position] | None = None
        #: The epoch and the number of the last publication that this process has; None while it does not listen.
        self._at: tuple[str, int] | None = None
        #: The number of gaps of which the application is being told.
        self._telling = 0
        #: Calls of join() that wait for the next position.
        self._waiters = Waiters()
        #: What the registry keeps for a connection that is in this room only.
        self._alone = (self,)
        self._tail = Tail()

    def __repr__(self) -> str:
        return f"<Room {self.name!r}, {len(self._members)} members here>"

    @property
    def members(self) -> list[Membership]:
        """The members in this process."""
        return self._members.all()

    def join(
        self,
        ws: AnyWebSocket,
        /,
        *,
        since: Position | str | None = None,
        key: str | None = None,
        **info: Any,
    ) -> Joining:
        """Make a connection a member. Use ``async with room.join(ws):``, or await it.

        The member leaves at the end of the block, and when its connection ends. Without a block,
        :meth:`leave` removes it.

        Args:
            ws: The WebSocket of the handler. In an ASGI application that endwell serves: the WebSocket of its
                framework, or the scope.
            since: A position that the client has seen, from an earlier connection. The publications after it
                are sent again, as far as the history has them. Text that is no position has the same effect as
                the position of another epoch. Default: None, only what is published from now on.
            key: The user, device or tab, for :meth:`presence`. Connections with the same key count once.
                Default: None, this connection, if there is ``info``; otherwise it is not shown.
            **info: What :meth:`presence` shows about this connection: values that JSON has.

        Returns:
            A :class:`Membership`. Its ``arrived`` says whether the member has missed publications.

        Raises:
            ConnectionClosed: The connection is closing.
            RoomLimit: The room has too many members, or the connection is in too many rooms.
            ValueError: The connection is a member already, an ASGI WebSocket is not accepted yet, or ``key``
                contains a lone surrogate.
            TypeError: An argument has the wrong type.
            BusUnavailable: The bus is not available.
        """
        position = _position(since)
        self._registry.check_presence(key, info)
        membership = Membership(self, ws, key, info)
        return Joining(self._join(membership, since is not None, position))

    def leave(self, ws: AnyWebSocket) -> None:
        """Remove a member. Without effect if the connection is no member.

        Raises:
            TypeError: ``ws`` is not a WebSocket.
            ConcurrencyError: This thread is not that of the event loop.
        """
        engine = engine_of(ws)
        engine._guard("leave")
        if (membership := self._members.get(engine)) is not None:
            self._leave(membership, grace=0.0)

    async def publish(
        self, message: str | Buffer, *, exclude: AnyWebSocket | None = None, slow: Slow = "skip"
    ) -> Receipt:
        """Send a message to all members, in all processes.

        Args:
            message: ``str`` for a text message, a bytes-like object for a binary message.
            exclude: A member of this process that does not get the message.
            slow: What happens to slow members: see :meth:`endwell.Server.broadcast`. Default: ``"skip"``.

        Returns:
            A receipt with the position of the message. The members of this process have been sent it.

        Raises:
            TypeError: ``message`` or ``exclude`` has the wrong type.
            ValueError: ``slow`` is not a policy, or ``message`` contains a lone surrogate.
            RoomLimit: The message is larger than ``max_message``.
            BusUnavailable: The bus is not available. The text says whether the message may have been sent.
            ConcurrencyError: The server does not serve, or serves in another event loop.
        """
        check_slow(slow)
        self._registry.check()
        kept = self._registry.check_message(message)
        call = Call(None if exclude is None else engine_of(exclude, "exclude"))
        position, workers = await self._registry.bus.publish(
            self.name, kept, self._options.history, slow, call
        )
        if call.delivered is not None:
            await call.delivered
        report = call.report
        return Receipt(position, workers, report.sent, report.slow, report.gone, report.unsupported)

    async def position(self) -> Position:
        """The position of the room.

        To give a client a state and all changes of it: take the position, load the state, send it, then
        ``join(since=position)``.

        Raises:
            BusUnavailable: The bus is not available.
        """
        self._registry.check()
        return await self._registry.bus.position(self.name)

    async def history(
        self, since: Position | str | None = None, limit: int | None = None
    ) -> list[Publication]:
        """The publications after ``since`` that the history has, in order.

        Args:
            since: A position. Default: None, from the beginning of the history.
            limit: Maximum number of publications. Default: None, all.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: ``limit`` is negative.
            BusUnavailable: The bus is not available.
        """
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise TypeError(f"limit must be an integer or None, not {limit!r}")
        if limit is not None and limit < 0:
            raise ValueError(f"limit must not be negative, and is {limit!r}")
        self._registry.check()
        if limit is not None:
            limit = min(limit, MAX_LIMIT)
        return (await self._registry.bus.page(self.name, _position(since), limit)).publications

    async def presence(self) -> list[Present]:
        """The keys that are present in the room, in all processes, in the order in which they came.

        If there are many, they are read in parts, and other tasks run meanwhile. A key that comes or leaves meanwhile
        may be in the result or not.

        Raises:
            BusUnavailable: The bus is not available.
        """
        self._registry.check()
        return await self._registry.bus.presence(self.name)

    # -- members --------------------------------------------------------------------

    @property
    def is_reserved(self) -> bool:
        """Whether it is made by endwell, such as that of a user."""
        return self.name[0] == RESERVED

    async def _join(self, membership: Membership, resumes: bool, since: Position | None) -> Membership:
        engine = membership._engine
        engine._guard("join")
        self._registry.check()
        self._check_new(engine)
        if engine.ending is not None:
            await refuse(engine)
        limit = self._options.max_members
        if limit is not None and self._users >= limit:
            raise RoomLimit(f"the room {self.name!r} has {limit} members already (max_members)")
        self._registry.add(self, engine)
        self._users += 1
        try:
            await self._enter(membership, resumes, since)
        except BaseException:
            self._registry.remove(self, engine)
            self._release()
            raise
        self._members.add(membership)
        if membership.key is not None:
            info, grace = dict(membership.info), self._grace_of(membership)
            self._registry.bus.enter(self.name, membership._number, membership.key, info, grace)
        return membership

    async def _enter(self, membership: Membership, resumes: bool, since: Position | None) -> None:
        """Wait until the connection can become a member."""
        engine = membership._engine
        if engine.is_open:
            await self._listen()
        # A member that joined now would be told of a gap that is before its position.
        while self._telling and engine.is_open:
            await self._waiters.wait()
        if resumes and engine.is_open:
            membership._arrived = await replay(self, membership, since)
        if not engine.is_open:
            await refuse(engine)
        # Another task may have joined with the same connection.
        self._check_new(engine)

    def _check_new(self, engine: WebSocket) -> None:
        if self._members.get(engine) is not None:
            raise ValueError(f"the connection is a member of the room {self.name!r} already")

    def _ended(self, engine: WebSocket, *, returns: bool) -> None:
        """A connection has ended that is a member, or was joining."""
        membership = self._members.get(engine)
        if membership is None:
            self._waiters.wake()
        else:
            self._leave(membership, self._grace_of(membership) if returns else 0.0)

    def _grace_of(self, membership: Membership) -> float:
        """How long its key waits for another connection, if it may return."""
        return self._options.grace if membership._named else 0.0

    def _leave(self, membership: Membership, grace: float) -> None:
        if membership not in self._members:
            return
        self._members.remove(membership)
        self._registry.remove(self, membership._engine)
        if membership.key is not None:
            self._registry.bus.leave(self.name, membership._number, membership.key, grace)
        self._release()

    @property
    def _position(self) -> Position | None:
        """The position of this process; None while it does not listen."""
        # Not an attribute, because making it takes as long as a part of the delivery to a member.
        return None if self._at is None else Position(*self._at)

    def _position_of(self, membership: Membership) -> Position | None:
        if membership not in self._members or (position := self._position) is None:
            return None
        return self._members.position_of(membership, position)

    # -- listening --------------------------------------------------------------------

    async def _listen(self) -> None:
        """Wait until this process listens to the room."""
        if self._listening is None:
            self._registry.hold(self)
            self._listening = asyncio.ensure_future(self._registry.bus.listen(self.name))
        listening = self._listening
        try:
            position = await asyncio.shield(listening)
        except BaseException:
            # Not if it was successful, and only this caller is cancelled.
            if self._listening is listening and _has_failed(listening):
                self._listening = None
            raise
        if self._at is None:
            self._at = position.epoch, position.sequence

    def _release(self) -> None:
        self._users -= 1
        if self._users == 0:
            if self._listening is not None:
                self._listening.cancel()
                self._registry.bus.ignore(self.name)
            self._listening = self._at = None
            self._registry.release(self)

    # -- publications -------------------------------------------------------------------

    def _published(self, position: Position, publication: Publication, slow: Slow, call: Call | None) -> None:
        """The bus delivers a publication."""
        if self._listening is None:
            return  # the last member has left meanwhile
        self._tail.append(publication)
        self._advance(position.epoch, position.sequence)
        self._members.send(publication, slow, call)

    def _arrived(self, epoch: str, batch: list[Arrival], alone: bool) -> None:
        """The bus delivers publications that have arrived together."""
        if self._listening is None:
            return
        if self._tail.readers:
            for sequence, message, _, _ in batch:
                self._tail.append(Publication(sequence, message))
        self._advance(epoch, batch[-1][0])
        self._members.send_all(batch, alone)

    def _advance(self, epoch: str, sequence: int) -> None:
        self._at = epoch, sequence
        self._waiters.wake()

    def _lost(self, lost: int | None, position: Position) -> None:
        """The bus has lost publications for this process."""
        if self._listening is None:
            return
        self._members.finish()
        self._tail.clear()
        self._advance(position.epoch, position.sequence)
        self._telling += 1
        told = self._registry.tell_gap(self, Gap(lost, 0))
        # Coroutine functions take their first step before.
        asyncio.get_running_loop().call_soon(self._has_told)
        if not told and not self.is_reserved:
            self._members.close_all()

    def _has_told(self) -> None:
        self._telling -= 1
        self._waiters.wake()


def _has_failed(future: asyncio.Future[Any]) -> bool:
    return future.cancelled() or (future.done() and future.exception() is not None)


def _position(since: Position | str | None) -> Position | None:
    if isinstance(since, str):
        try:
            return Position.parse(since)
        except ValueError:
            return None
    if since is None or (isinstance(since, Position) and _is_valid(since)):
        return since
    raise TypeError(f"since must be a Position, its text or None, not {since!r}")


def _is_valid(position: Position) -> bool:
    """Whether the fields of a position that the application has made have the right types."""
    try:
        return Position.parse(str(position)) == position
    except ValueError:
        return False
