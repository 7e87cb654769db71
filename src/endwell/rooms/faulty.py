"""A bus in memory that fails when a test asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ..aio.broadcast import Slow
from ..aio.waiters import Waiters
from ..errors import BusUnavailable
from .bus import Receiver
from .history import History, Page
from .hub import Hub
from .local import LocalBus
from .options import MAX_HISTORY
from .position import Message, Position, Publication
from .present import Connection, Info, Left, Present
from .rooms import Rooms, replace_bus

__all__ = ["FaultyBus"]

#: Seconds for which calls wait for the bus. As with Redis.
WAIT_TIME = 5.0


class FaultyBus:
    """Connects the rooms of several servers in one event loop, and fails as a test asks.

    Each server plays a process of its own. So a test shows what the application does with ``on_gap``,
    :class:`Gap` and :class:`BusUnavailable`, without Redis and without waiting: see :func:`endwell.testing.run`.

    The methods take the :class:`Rooms` of the processes that they concern. Without any, they concern all.

    Args:
        max_history: As in :class:`Rooms`. Default: 256 MiB.

    Example:
        ```python
        import endwell
        from endwell import testing
        from endwell.rooms import Rooms

        server = endwell.Server()
        other = Rooms()
        bus = testing.FaultyBus()
        bus.connect(server.rooms, other)

        @server.websocket("/")
        async def member(ws):
            async with server.rooms["news"].join(ws):
                await ws.send("you are a member")
                await ws.wait_closed()

        @server.rooms.on_gap
        def on_gap(room, gap):
            server.broadcast([each.ws for each in room.members], f"{gap.lost} messages are lost")

        async def main():
            async with server.serving(), other:
                async with endwell.connect(f"ws://localhost:{server.port}/") as ws:
                    print(await ws.recv())  # you are a member
                    bus.lose(2, server.rooms)
                    for number in range(3):
                        await other["news"].publish(f"message {number}")
                    print(await ws.recv())  # 2 messages are lost
                    print(await ws.recv())  # message 2

        testing.run(main())
        ```
    """

    def __init__(self, *, max_history: int = MAX_HISTORY) -> None:
        self._max_history = max_history
        self._hub: Hub = Hub(max_history)
        self._ends: dict[Rooms, _End] = {}

    def connect(self, *rooms: Rooms) -> None:
        """Connect rooms, in place of any other bus. Call it before their servers serve.

        Raises:
            TypeError: An argument is not a :class:`Rooms`.
            ConcurrencyError: The rooms are in use already.
        """
        for each in rooms:
            if not isinstance(each, Rooms):
                raise TypeError(f"rooms must be Rooms, such as server.rooms, not {each!r}")
            end = _End(self._hub)
            replace_bus(each, end)
            self._ends[each] = end

    def cut(self, *rooms: Rooms) -> None:
        """Cut processes from the bus: they reach nothing and hear nothing until :meth:`heal`.

        They know it: ``is_connected`` is False. Calls of theirs wait for 5 s, then they raise
        :class:`BusUnavailable`.

        Raises:
            ValueError: The rooms are not connected to this bus.
        """
        for end in self._of(rooms):
            end.lost += end.connected
            end.connected = False

    def heal(self, *rooms: Rooms) -> None:
        """End :meth:`cut`. What the processes have missed is read from the history, or is a gap.

        Raises:
            ValueError: The rooms are not connected to this bus.
        """
        for end in self._of(rooms):
            end.heal()

    def lose(self, count: int, *rooms: Rooms) -> None:
        """Lose the next publications on the way to processes, which notice it with the one after them.

        Args:
            count: Their number, in all rooms together.
            *rooms: The processes.

        Raises:
            ValueError: The rooms are not connected to this bus.
        """
        for end in self._of(rooms):
            end.loses = count

    def lose_receipts(self, count: int, *rooms: Rooms) -> None:
        """Lose the answers to the next calls of ``publish()``: the message is sent, and the call raises.

        The text of the :class:`BusUnavailable` is "may have been sent" then.

        Args:
            count: The number of calls.
            *rooms: The processes that call.

        Raises:
            ValueError: The rooms are not connected to this bus.
        """
        for end in self._of(rooms):
            end.loses_receipts = count

    def restart(self) -> None:
        """Lose all data of the bus, as a Redis that starts again without its data.

        The rooms have another epoch and no history. The processes that are connected are told at once.
        """
        self._hub = Hub(self._max_history)
        for end in self._ends.values():
            end.move(self._hub)

    def _of(self, rooms: tuple[Rooms, ...]) -> list[_End]:
        if any(each not in self._ends for each in rooms):
            raise ValueError("the rooms are not connected to this bus; call connect() first")
        return [self._ends[each] for each in rooms or self._ends]


class _End(LocalBus):
    """What one process has of the bus: it shares the hub with the others."""

    name = "faulty"

    is_shared = can_reserve = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(0)
        self._hub = hub
        self.connected = True
        self.lost = 0
        self.loses = self.loses_receipts = 0
        #: The rooms to which this process listens, each with the position that was delivered.
        self._delivered: dict[str, Position] = {}
        #: The connections that are present: the room, the key, the info and the grace.
        self._entered: dict[int, tuple[str, str, Info, float]] = {}
        #: What is done in the next turn of the loop, or when the process is connected again.
        self._later: list[Callable[[], None]] = []
        self._waiters = Waiters()

    @property
    def is_connected(self) -> bool:
        """See :attr:`Bus.is_connected`."""
        return self.connected

    @property
    def disconnections(self) -> int:
        """See :attr:`Bus.disconnections`."""
        return self.lost

    async def start(self, receiver: Receiver) -> None:
        """See :meth:`Bus.start`."""
        await super().start(receiver)
        self._delivered.clear()
        self._entered.clear()

    async def stop(self) -> None:
        """See :meth:`Bus.stop`."""
        await super().stop()
        self._do_later()
        self._hub.remove(self, self._loop.time())

    def end_graces(self) -> None:
        """See :meth:`Bus.end_graces`. Others are connected."""

    # -- calls ---------------------------------------------------------------------

    async def listen(self, room: str) -> Position:
        """See :meth:`Bus.listen`."""
        await self._reach()
        position = self._delivered[room] = await super().listen(room)
        return position

    def ignore(self, room: str) -> None:
        """See :meth:`Bus.ignore`."""
        self._delivered.pop(room, None)
        super().ignore(room)

    async def publish(
        self, room: str, message: Message, history: History | None, slow: Slow, call: object
    ) -> tuple[Position, int]:
        """See :meth:`Bus.publish`."""
        await self._reach()
        position, publication, listeners = self._hub.publish(room, message, history, self._loop.time())
        self._set_timer()
        for end in [*listeners]:
            assert isinstance(end, _End)
            end._hear(room, position, publication, slow, call if end is self else None)
        if self.loses_receipts:
            self.loses_receipts -= 1
            raise BusUnavailable("the bus has not answered; the message may have been sent")
        return position, len(listeners)

    async def position(self, room: str) -> Position:
        """See :meth:`Bus.position`."""
        await self._reach()
        return await super().position(room)

    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """See :meth:`Bus.page`."""
        await self._reach()
        return await super().page(room, after, limit)

    def enter(self, room: str, connection: int, key: str, info: Info, grace: float) -> None:
        """See :meth:`Bus.enter`."""
        self._entered[connection] = room, key, info, grace
        self._do(partial(super().enter, room, connection, key, info, grace))

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """See :meth:`Bus.leave`."""
        self._entered.pop(connection, None)
        self._do(partial(super().leave, room, connection, key, grace))

    async def reserve(self, held: int, wanted: int, limit: int) -> tuple[int, int]:
        """See :meth:`Bus.reserve`."""
        await self._reach()
        return self._hub.reserve(self, held, wanted, limit)

    async def presence(self, room: str) -> list[Present]:
        """See :meth:`Bus.presence`."""
        await self._reach()
        return await super().presence(room)

    # -- the faults ------------------------------------------------------------------

    def heal(self) -> None:
        """Be connected again."""
        self.connected = True
        self._catch_up()
        self._do_later()
        self._waiters.wake()

    def move(self, hub: Hub) -> None:
        """Use another hub, which knows nothing yet."""
        self._hub = hub
        for room in self._delivered:
            hub.listen(room, self, self._loop.time())
        for connection, (room, key, info, grace) in self._entered.items():
            # Not told, because the keys have been here before.
            self._do(partial(self._enter_again, room, connection, key, info, grace))
        if self.connected:
            self._catch_up()

    def _enter_again(self, room: str, connection: int, key: str, info: Info, grace: float) -> None:
        self._hub.enter(room, Connection(self, connection), key, info, grace, self._loop.time())

    def _do(self, do: Callable[[], None]) -> None:
        if not self._later:
            # The receiver is told later, as with every bus between processes.
            self._loop.call_soon(self._do_later)
        self._later.append(do)

    def _do_later(self) -> None:
        if self.connected:
            later, self._later = self._later, []
            for do in later:
                do()

    async def _reach(self) -> None:
        """Wait until the process is connected."""
        # Other tasks run meanwhile, as with every bus between processes.
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(WAIT_TIME):
                while not self.connected:
                    await self._waiters.wait()
        except TimeoutError:
            raise BusUnavailable("the process is cut from the bus; nothing was sent") from None

    # -- what arrives --------------------------------------------------------------------

    def _hear(
        self, room: str, position: Position, publication: Publication, slow: Slow, call: object
    ) -> None:
        if not self.connected:
            return
        if self.loses:
            self.loses -= 1
            return
        before = self._delivered[room]
        if (position.epoch, position.sequence) != (before.epoch, before.sequence + 1):
            self._read_missed(room, Position(position.epoch, position.sequence - 1), slow)
        if room in self._delivered:
            self._delivered[room] = position
            self._receiver.published(room, position, publication, slow, call)

    def _catch_up(self) -> None:
        for room in [*self._delivered]:
            if room in self._delivered:  # a callback may have removed its members
                self._read_missed(room, self._hub.position(room, self._loop.time()), "queue")

    def _read_missed(self, room: str, end: Position, slow: Slow) -> None:
        """Deliver what was missed up to ``end``, as far as the history has it."""
        before = self._delivered[room]
        if before == end:
            return
        page = self._hub.page(room, before, None, self._loop.time())
        missed = [each for each in page.publications if each.sequence <= end.sequence]
        first = missed[0].sequence if missed else end.sequence + 1
        self._delivered[room] = end
        if page.lost is None or first > before.sequence + 1:
            lost = None if page.lost is None else first - before.sequence - 1
            self._receiver.lost(room, lost, Position(end.epoch, first - 1))
        for each in missed:
            self._receiver.published(room, Position(end.epoch, each.sequence), each, slow, None)

    def _tell(self, left: list[Left]) -> None:
        for room, present, end in left:
            end._receiver.went(room, present)
