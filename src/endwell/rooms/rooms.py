"""All rooms of a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar, Unpack

from ..aio.callbacks import check_arguments
from ..options import check_keywords
from ..text import utf8
from .blocking import BlockingRooms
from .bus import Bus
from .hub import MAX_KNOWN_ROOMS
from .local import LocalBus
from .options import MAX_HISTORY, RoomKeywords, RoomLimits, RoomOptions
from .registry import Registry
from .room import Room

__all__ = [
    "Rooms",
    "choose_bus",
    "end_graces",
    "limits_of",
    "make_bus",
    "registry_of",
    "replace_bus",
    "use_bus",
]

#: The schemes of the URL of a bus.
REDIS = ("redis", "rediss", "valkey", "valkeys", "unix", "redis+sentinel", "rediss+sentinel")
CLUSTER = ("redis+cluster", "rediss+cluster")
NATS = ("nats", "tls")
SCHEMES = (*REDIS, *CLUSTER, *NATS)

Callback = TypeVar("Callback", bound=Callable[..., object])


class Rooms:
    """The rooms of a server: groups of connections that get the same messages.

    ``rooms[name]`` is the :class:`Room` of a name. A room need not be created. Five minutes after its last use
    it takes no memory, if it has no members and no history. The object belongs to one event loop at a time.
    :attr:`Server.rooms` is such an object; several servers of one event loop may have the same one.

    Args:
        max_rooms: Maximum number of rooms in which one connection is. Default: 128. Precedent: Centrifugo.
        max_message: Maximum size of a message that is published, in bytes. Default: 1 MiB, as ``max_size``.
        max_name: Maximum length of a name, in bytes of UTF-8. At most 65,535. Default: 255.
        max_history: Maximum size of the messages in the histories of all rooms, in bytes. Above it, rooms
            without members lose theirs first, then the oldest messages of the room in use. Default: 256 MiB.
        max_known_rooms: Maximum number of different rooms, in all processes of a supervisor. A room counts while it
            has members, and for five minutes after its last use. Above it, the room that was left first is
            forgotten with its history, and if each has members, an error is raised. With Redis: number of rooms
            with members in this process. Default: 100,000. Names often come from clients.
        bus: The URL of the bus, as in ``Server(bus=...)``, for rooms without a :class:`Server`. Default: None.

    Raises:
        TypeError: A limit is not an integer, or ``bus`` is not a ``str``.
        ValueError: A limit is not positive, ``max_name`` is too large, or ``bus`` is no URL of a bus.
        ImportError: The package of the bus is not installed.

    Example:
        ```python
        import asyncio
        import endwell

        server = endwell.Server()

        @server.websocket("/chat/{name}")
        async def chat(ws, name):
            async with server.rooms[name].join(ws):
                async for message in ws:
                    await server.rooms[name].publish(message)

        async def main():
            async with server.serving(port=0):
                async with endwell.connect(f"ws://127.0.0.1:{server.port}/chat/lobby") as ws:
                    await ws.send("hello")
                    print(await ws.recv())  # hello

        asyncio.run(main())
        ```
    """

    def __init__(
        self,
        *,
        max_rooms: int = 128,
        max_message: int = 1 << 20,
        max_name: int = 255,
        max_history: int = MAX_HISTORY,
        max_known_rooms: int = MAX_KNOWN_ROOMS,
        bus: str | None = None,
    ) -> None:
        limits = RoomLimits(
            max_rooms=max_rooms,
            max_message=max_message,
            max_name=max_name,
            max_history=max_history,
            max_known_rooms=max_known_rooms,
        )
        self._registry = Registry(limits, LocalBus(max_history, max_known_rooms))
        if bus is not None:
            choose_bus(self, bus)

    # Python would call __getitem__(0), because there is no list of all names.
    __iter__ = None
    __contains__ = None

    async def __aenter__(self) -> Self:
        """Begin to use the rooms in this event loop. A :class:`Server` does it for its rooms while it serves.

        Raises:
            ConcurrencyError: The rooms are in use in another event loop.
        """
        await self._registry.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it: all keys whose connections have ended leave now."""
        await self._registry.stop()

    def __getitem__(self, name: str) -> Room:
        """The room of this name.

        Raises:
            TypeError: The name is not a ``str``.
            RoomLimit: The name is empty, or longer than ``max_name``.
            ValueError: The name contains a lone surrogate.
        """
        self._registry.check_name(name)
        return self._registry.room(name)

    def user(self, key: Any) -> Room:
        """The room of one user: what is published in it is sent to the user's current connection, wherever it is.

        The members are the connections with which :meth:`Sessions.join` was called with this key, in all
        processes. Of the :class:`Receipt`, ``workers`` is 0 if the user has no connection. Without a
        :class:`Server` there are no sessions, so the members are the connections that :meth:`Room.join` this room.
        :meth:`configure` has no effect on it. If the bus loses publications, :meth:`on_gap` is called, and the
        members are not closed.

        Args:
            key: The key of the user in the sessions: a ``str``, an ``int``, or a tuple of these.

        Raises:
            TypeError: The key has another type.
            RoomLimit: The key is too long.

        Example:
            ```python
            import asyncio
            import endwell

            server = endwell.Server()

            @server.websocket("/user/{name}")
            async def user(ws, name):
                server.sessions.join(name, ws)
                await server.rooms.user(name).publish(f"hello {name}")
                await ws.wait_closed()

            async def main():
                async with server.serving(port=0):
                    async with endwell.connect(f"ws://127.0.0.1:{server.port}/user/ada") as ws:
                        print(await ws.recv())  # hello ada
                    receipt = await server.rooms.user("eve").publish("hello eve")
                    print(receipt.workers)  # 0

            asyncio.run(main())
            ```
        """
        return self._registry.user(key)

    @property
    def is_connected(self) -> bool:
        """Whether the other processes can be reached; :meth:`Server.health` shows it to a load balancer.

        True without a bus. While it is False, members of this process may miss publications. They are sent them
        later, or are told of a gap: see :meth:`on_gap`.
        """
        return self._registry.bus.is_connected

    @property
    def disconnections(self) -> int:
        """How often the other processes could no longer be reached, also because this one heard nothing.

        For a counter of your metrics, together with :attr:`lost_publications`.
        """
        return self._registry.bus.disconnections

    @property
    def lost_publications(self) -> int:
        """Number of publications that this process has lost, in rooms with members; see :meth:`on_gap`.

        Losses whose number cannot be known (``Gap(lost=None)``) are not counted.
        """
        return self._registry.lost_publications

    @property
    def blocking(self) -> BlockingRooms:
        """The same rooms for threads, such as those of plain handlers.

        ``server.rooms.blocking[name]`` is a :class:`BlockingRoom`, whose methods block instead of being awaited.
        """
        return BlockingRooms(self._registry)

    def configure(self, pattern: str, **options: Unpack[RoomKeywords]) -> None:
        """Set the options of all rooms whose name matches a pattern.

        If several patterns match a name, the last call applies, with all its options. It must be called before
        the first use of the room.

        Args:
            pattern: A name in which ``*`` stands for any text, ``?`` for one character and ``[abc]`` for one
                of these (``fnmatch``).
            **options: The fields of :class:`RoomOptions`.

        Raises:
            TypeError: A keyword is not a field of :class:`RoomOptions`, or a value has the wrong type.
            ValueError: A value is out of range, a room whose name matches is in use, or ``pattern`` contains a lone
                surrogate.

        Example:
            ```python
            from endwell import Server
            from endwell.rooms import History

            server = Server()
            server.rooms.configure("chat/*", history=History(messages=500))
            ```
        """
        if not isinstance(pattern, str):
            raise TypeError(f"pattern must be a str, not {pattern!r}")
        utf8(pattern, "pattern")  # no room can have such a name
        check_keywords("configure", options, RoomKeywords.__optional_keys__)
        if (used := self._registry.used(pattern)) is not None:
            raise ValueError(f"configure({pattern!r}) must come before the first use of the room {used!r}")
        self._registry.patterns.append((pattern, RoomOptions(**options)))

    def joined(self, callback: Callback) -> Callback:
        """Decorator for a function ``callback(room, present)`` that runs when a key comes into a room.

        It runs once, in the process of the connection. A coroutine function runs as a task. A plain function
        runs in the event loop, and must not block. Exceptions are logged.

        Args:
            callback: Its arguments are the :class:`Room` and a :class:`Present`.

        Raises:
            TypeError: ``callback`` is not callable, or does not take these arguments.
        """
        return _register(self._registry.joined, callback)

    def left(self, callback: Callback) -> Callback:
        """Decorator for a function ``callback(room, present)`` that runs when a key has left a room.

        It runs once, in the process of the last connection, after the grace of the key: see
        :class:`RoomOptions`. If that process has ended, it runs in another one. It runs as for :meth:`joined`.

        Raises:
            TypeError: ``callback`` is not callable, or does not take these arguments.
        """
        return _register(self._registry.left, callback)

    def on_gap(self, callback: Callback) -> Callback:
        """Decorator for a function ``callback(room, gap)`` that runs when publications are lost for this process.

        This happens when the bus fails for longer than the history reaches. The callback decides what the members
        are told, for example to load the state again. Without a callback, their connections are closed with 1013
        and retry advice.

        It runs in each process that is affected. A plain function runs before the next publication is sent to the
        members. So what it sends them, with :meth:`Server.broadcast`, is at the place of the gap. A coroutine
        function runs as a task; its members may be sent later publications first. Until its first ``await``,
        :attr:`Room.members` has only members that were there when the gap began. Exceptions are logged.

        Args:
            callback: Its arguments are the :class:`Room` and a :class:`Gap`.

        Raises:
            TypeError: ``callback`` is not callable, or does not take these arguments.
        """
        return _register(self._registry.gap, callback, "gap")


def make_bus(url: str, max_history: int = MAX_HISTORY, max_known_rooms: int = MAX_KNOWN_ROOMS) -> Bus:
    """Return the bus of a URL; it is not connected yet.

    The limits apply if the histories are in this process.

    Raises:
        TypeError: ``url`` is not a ``str``.
        ValueError: The URL is wrong.
        ImportError: The package of the bus is not installed.
    """
    if not isinstance(url, str):
        raise TypeError(f"bus must be a URL or None, not {url!r}")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        # The rest of the URL may have a password.
        raise ValueError(f"bus must be a URL with one of the schemes {', '.join(SCHEMES)}")
    package = "redis" if scheme in (*REDIS, *CLUSTER) else "nats"
    try:
        if package == "redis":
            from .redis import ClusterBus, RedisBus

            return ClusterBus(url) if scheme in CLUSTER else RedisBus(url)
        from .nats import NatsBus

        return NatsBus(url, max_history, max_known_rooms)
    except ImportError as error:
        raise ImportError(f"the bus needs a package: pip install 'endwell[{package}]' ({error})") from error


def choose_bus(rooms: Rooms, url: str) -> None:
    """Connect ``rooms`` by the bus of a URL. Raises the errors of :func:`make_bus`."""
    limits = limits_of(rooms)
    rooms._registry.bus = make_bus(url, limits.max_history, limits.max_known_rooms)
    rooms._registry.has_chosen = True


def use_bus(rooms: Rooms, bus: Bus) -> None:
    """Connect ``rooms`` by ``bus``, unless their application has chosen another one."""
    if not rooms._registry.has_chosen:
        rooms._registry.bus = bus


def replace_bus(rooms: Rooms, bus: Bus) -> None:
    """Connect ``rooms`` by ``bus``, whatever their application has chosen.

    Raises:
        ConcurrencyError: The rooms are in use.
    """
    rooms._registry.check_unused()
    rooms._registry.bus = bus
    rooms._registry.has_chosen = True


async def end_graces(rooms: Rooms) -> None:
    """All connections of the server have ended: call ``left`` for keys that no other process can wait for."""
    await rooms._registry.end_graces()


def limits_of(rooms: Rooms) -> RoomLimits:
    """The limits of the rooms."""
    return rooms._registry.limits


def registry_of(rooms: Rooms) -> Registry:
    """What the rooms of this process share."""
    return rooms._registry


def _register(
    callbacks: list[Callable[..., object]], callback: Callback, argument: str = "present"
) -> Callback:
    if not callable(callback):
        raise TypeError(f"callback must be a function, not {callback!r}")
    check_arguments(callback, "room", argument)
    callbacks.append(callback)
    return callback
