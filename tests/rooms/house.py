"""Servers whose rooms are connected by a bus, all in one process, with real sockets between them."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import endwell
from endwell.rooms import History
from endwell.rooms.broker import Broker, Link
from endwell.rooms.rooms import use_bus
from endwell.rooms.supervised import SupervisorBus
from endwell.testing import FaultyBus
from tests.nats.server import shared_server as nats_server
from tests.pair import within
from tests.redis.clusters import shared_cluster as redis_cluster
from tests.redis.server import shared_server as redis_server

__all__ = ["BETWEEN", "BUSES", "SERVERS", "House", "Pump", "house"]

#: The servers of the tests, which make test-buses adds.
SERVERS = {"redis": redis_server, "cluster": redis_cluster, "nats": nats_server}
#: The buses that connect several processes.
BETWEEN = ["supervisor", "faulty", *(name for name in SERVERS if os.environ.get(f"ENDWELL_{name.upper()}"))]
BUSES = ["local", *BETWEEN]

KEPT = History(messages=50)


class Pump:
    """A broker that is called as a supervisor calls it, in the test's own loop."""

    def __init__(self) -> None:
        self.broker = Broker(1 << 20)
        self.links: list[Link] = []
        #: While it is set, nothing is sent to the workers.
        self.holds = False
        self._timer: asyncio.Task[None] | None = None

    def connect(self) -> socket.socket:
        """The worker's end of a new connection."""
        near, far = socket.socketpair()
        link = Link(near)
        self.links.append(link)
        self.broker.add(link)
        loop = asyncio.get_running_loop()
        loop.add_reader(link.fileno(), self._readable, link)
        if self._timer is None:
            self._timer = loop.create_task(self._tick())
        return far

    def end(self, link: Link) -> None:
        """The supervisor's process ends, as far as one worker sees it."""
        asyncio.get_running_loop().remove_reader(link.fileno())
        self.broker.remove(link)
        link.close()

    async def stop(self) -> None:
        for link in self.broker.links:
            self.end(link)
        if self._timer is not None:
            self._timer.cancel()

    def _readable(self, link: Link) -> None:
        self.broker.readable(link)
        if link.ended:
            self.end(link)
        self.flush()

    def flush(self) -> None:
        if not self.holds:
            self.broker.flush()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.broker.tick()
            self.flush()


class House:
    """Some servers with the same rooms."""

    def __init__(self, servers: list[endwell.Server], pump: Pump) -> None:
        self.servers = servers
        self.pump = pump
        #: What the callbacks were told: the number of the server, the event, the room and the key.
        self.events: list[tuple[int, str, str, str]] = []
        self.memberships: list[Any] = []
        #: The clients, because a connection without a reference is closed.
        self.clients: list[endwell.WebSocket] = []
        for number, server in enumerate(servers):
            self._watch(number, server)

    def _watch(self, number: int, server: endwell.Server) -> None:
        @server.rooms.joined
        async def joined(room: Any, present: Any) -> None:
            self.events.append((number, "joined", room.name, present.key))

        @server.rooms.left
        def left(room: Any, present: Any) -> None:
            self.events.append((number, "left", room.name, present.key))

        @server.websocket("/{name}")
        async def member(ws: endwell.WebSocket, name: str) -> None:
            query = ws.request.query
            info = {name: value for name, value in query.items() if name not in ("since", "key")}
            joining = server.rooms[name].join(ws, since=query.get("since"), key=query.get("key"), **info)
            async with joining as membership:
                self.memberships.append(membership)
                await ws.send(repr(membership.arrived))
                async for message in ws:
                    await membership.room.publish(message)

    def room(self, number: int = 0, name: str = "a") -> Any:
        return self.servers[number].rooms[name]

    async def client(self, number: int = 0, path: str = "a", **query: Any) -> endwell.WebSocket:
        """A client that is a member."""
        text = "&".join(f"{key}={value}" for key, value in query.items())
        uri = f"ws://127.0.0.1:{self.servers[number].port}/{path}?{text}"
        # Without the ping that a client sends after a stall: some tests count what the server sends.
        ws = await endwell.connect(uri, compression=None, ping_interval=None)
        self.clients.append(ws)
        return ws

    async def joined(self, number: int = 0, path: str = "a", **query: Any) -> tuple[Any, str]:
        """A client that is a member, and what it found. It was sent no publication before that."""
        ws = await self.client(number, path, **query)
        found = await within(ws.recv())
        assert isinstance(found, str)
        return ws, found


@asynccontextmanager
async def house(
    count: int,
    bus: str,
    limit: int | None = None,
    prepare: Callable[[endwell.Server], object] = lambda _: None,
    **options: Any,
) -> AsyncIterator[House]:
    """``count`` servers; with the bus "local" there is one. ``bus`` may be a URL. ``limit`` is max_connections.

    ``prepare`` is called with each of them before it serves.
    """
    pump, faulty = Pump(), FaultyBus()
    place = SERVERS[bus]().url if bus in SERVERS else bus
    url = f"{place}?prefix={secrets.token_hex(4)}" if ":" in place else None
    servers = [endwell.Server(compression=None, bus=url, max_connections=limit) for _ in range(count)]
    for server in servers:
        prepare(server)
        server.rooms.configure("*", **{"history": KEPT, "grace": 0.05, **options})
        if bus == "faulty":
            faulty.connect(server.rooms)
        if bus == "supervisor":
            use_bus(server.rooms, SupervisorBus(pump.connect()))
    clients: list[endwell.WebSocket] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(pump.stop)
        # After the servers. On a busy machine, a client may not have read its Close before its loop is closed.
        stack.push_async_callback(end_all, clients)
        for server in servers:
            await stack.enter_async_context(server.serving(grace=1.0))
        made = House(servers, pump)
        made.clients = clients
        yield made


async def end_all(clients: list[endwell.WebSocket]) -> None:
    """Cut the connections that have not ended."""
    for ws in clients:
        if ws.ending is None:
            ws.abort()
    for ws in clients:
        await within(ws.closed)
