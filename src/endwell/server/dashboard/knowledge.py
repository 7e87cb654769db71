"""What one process knows of its connections, rooms and drain. Long walks take many turns of the event loop."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ...aio.bind import format_peer
from ...aio.inspection import is_compressed, is_slow, key_of, latency_of, present, queued
from ...aio.listen import Listener
from ...aio.reactor import reactor_of
from ...aio.syscalls import monotonic
from ...aio.websocket import WebSocket, last_message_at, opened_at
from ...rooms.registry import Registry
from ..drain.run import DrainRun
from ..metering import Metering
from .endings import MAX_TEXT, SEARCHED, EndingLog, find_endings, matches, text_of
from .numbers import Numbers
from .order import AskError, Order, Place, first, search_of

__all__ = ["Knowledge", "Process"]

#: Number of connections that are looked at in one turn of the event loop if there is no search. It takes 0.5 ms, or 1 ms
#: if endwell is not compiled.
WALKED = 1000
#: Seconds for each connection for which the selection of a list is used again, so that lists of 10,000 connections take
#: 0.3 % of a core, and the maximum. Its rows have the values of the moment.
WALK_INTERVAL = 1 / 2000
MAX_AGE = 5.0
#: Number of rooms that are counted in one turn.
COUNTED = 500
#: Seconds for which a count of the rooms is used again.
ROOMS_INTERVAL = 5.0
#: Number of the largest rooms that a summary has.
LARGEST = 20
#: Number of the rooms of a connection that its row has.
MAX_ROOMS = 20
#: Maximum characters of a path.
MAX_PATH = 300
#: Maximum number of routes in a summary.
MAX_ROUTES = 200


class _Selection(NamedTuple):
    """Which connections a list has."""

    #: Until when it is used again.
    until: float
    total: int
    places: list[Place]
    #: By their numbers, what does not change in the rows of the connections.
    fixed: dict[int, dict[str, Any]]


class Process(Protocol):
    """The server of this process, as the dashboard sees it."""

    connections: set[WebSocket]

    @property
    def _listener(self) -> Listener | None: ...

    @property
    def _drain_run(self) -> DrainRun | None: ...


class Knowledge:
    """What one process knows.

    Args:
        process: The server.
        skipped: The pattern of the route of the feeds, which are no connections of the application.
        registry: That of the rooms.
        metering: Has the totals.
    """

    def __init__(
        self,
        process: Process,
        skipped: str,
        registry: Callable[[], Registry],
        metering: Metering,
    ) -> None:
        self.worker = secrets.token_hex(4)
        self._process = process
        self._skipped = skipped
        self._registry = registry
        self._metering = metering
        self.numbers = Numbers()
        self.endings = EndingLog(skipped, self.numbers)
        self._began = monotonic()
        # Connections are sorted by their age on the wall clock, which the processes of several machines have.
        self._offset = time.time() - self._began
        self.host = socket.gethostname()
        self._rooms: tuple[int, list[list[Any]]] = 0, []
        self._rooms_due = 0.0
        self._selections: dict[tuple[Order, str, bool], _Selection] = {}

    def begin(self) -> None:
        """The server starts to listen."""
        self._began = monotonic()
        self._offset = time.time() - self._began

    # -- the summary --------------------------------------------------------------------

    async def summary(self) -> dict[str, Any]:
        """The summary of this process."""
        log = self.endings
        await self._count_rooms()
        # Without an await from here on, so that a connection that ends meanwhile is counted once.
        tallies, totals = self._metering.count(self._skipped)
        by_route = {route: each.open + each.closing for route, each in tallies.items()}
        counts = tallies.values()
        run = self._process._drain_run
        worker = {
            "worker": self.worker,
            "pid": os.getpid(),
            "host": self.host,
            "uptime": round(monotonic() - self._began, 3),
            "connections": sum(by_route.values()),
            "open": sum(each.open for each in counts),
            "closing": sum(each.closing for each in counts),
            "lingering": self._lingering(),
            "messages_in": log.messages_in + sum(each.messages_in for each in counts),
            "messages_out": log.messages_out + sum(each.messages_out for each in counts),
            "bytes_in": log.bytes_in + sum(each.bytes_in for each in counts),
            "bytes_out": log.bytes_out + sum(each.bytes_out for each in counts),
            "slow": sum(each.slow for each in counts),
            "stalled_seconds": round(reactor_of(asyncio.get_running_loop()).seconds_stalled, 3),
            "memory": _memory(),
            "state": "serving" if run is None else "draining",
            "drain": None if run is None else run.progress(),
        }
        return {
            "worker": worker,
            "by_route": _most({route: number for route, number in by_route.items() if number}),
            "endings": log.counts(),
            "rooms": {"count": self._rooms[0], "largest": self._rooms[1]},
            "bus": self._bus(),
            "totals": {self._metering.table_name or self.worker: totals},
        }

    def _lingering(self) -> int:
        listener = self._process._listener
        return 0 if listener is None else len(listener.lingering)

    def _bus(self) -> dict[str, Any]:
        registry = self._registry()
        return {
            "kind": registry.bus.name,
            "connected": registry.bus.is_connected,
        }

    async def _count_rooms(self) -> None:
        now = monotonic()
        if now < self._rooms_due:
            return
        self._rooms_due = now + ROOMS_INTERVAL
        registry = self._registry()
        rooms = registry.used_rooms()
        sizes: list[tuple[int, str]] = []
        for start in range(0, len(rooms), COUNTED):
            if start:
                await asyncio.sleep(0)
            sizes += [
                (registry.size_of(room), room.name[:MAX_TEXT]) for room in rooms[start : start + COUNTED]
            ]
            sizes = sorted(sizes, reverse=True)[:LARGEST]
        self._rooms = len(rooms), [[name, members] for members, name in sizes]

    # -- connections --------------------------------------------------------------------

    async def list(self, ask: dict[str, Any]) -> dict[str, Any]:
        """The rows of connections, with their places in the order.

        Raises:
            AskError: The ask is not valid.
        """
        order, search, slow = Order.of(ask), search_of(ask), ask.get("slow", False)
        if not isinstance(slow, bool):
            raise AskError("slow must be true or false")
        selection = await self._select(order, search, slow=slow)
        now = monotonic()
        found = [(place, self.numbers.find(place[2])) for place in selection.places]
        rows = [(place, self._row(ws, now, selection.fixed)) for place, ws in found if ws is not None]
        # Connections may have ended since, so the number of rows does not tell whether there are more.
        last = selection.places[-1] if len(selection.places) == order.limit else None
        return {"total": selection.total, "rows": rows, "last": last}

    async def _select(self, order: Order, search: str, *, slow: bool) -> _Selection:
        """The first connections in the order. A walk over many is used again for some seconds."""
        key, now = (order, search, slow), monotonic()
        self._selections = {each: kept for each, kept in self._selections.items() if kept.until > now}
        if (kept := self._selections.get(key)) is not None:
            return kept
        value_of = self._values()[order.sort]
        connections = list(self._process.connections)
        total = 0
        chosen: list[Place] = []
        #: What is worse than this value is not among the first ones.
        bound: Any = None
        step = SEARCHED if search else WALKED
        for start in range(0, len(connections), step):
            if start:
                await asyncio.sleep(0)
            found = present(connections, start, min(start + step, len(connections)), self._skipped)
            if slow:
                found = [ws for ws in found if is_slow(ws)]
            if search:
                found = [ws for ws in found if self._matches(ws, search)]
            total += len(found)
            for ws in found:
                value = value_of(ws)
                if bound is not None and (value < bound if order.descending else value > bound):
                    continue
                place = value, self.worker, self.numbers.of(ws)
                if order.is_after(place):
                    chosen.append(place)
            chosen = first(order, chosen)
            if len(chosen) == order.limit:
                bound = chosen[-1][0]
        until = now + min(len(connections) * WALK_INTERVAL, MAX_AGE)
        selection = self._selections[key] = _Selection(until, total, chosen, {})
        return selection

    def connection(self, ask: dict[str, Any]) -> dict[str, Any]:
        """The row of one connection; none if it has ended."""
        ws = self.find(ask)
        return {"row": None if ws is None else self._row(ws, monotonic(), {})}

    def find(self, ask: dict[str, Any]) -> WebSocket | None:
        """The connection of this process that a client names; None if it has ended."""
        worker, number = parse_connection(ask)
        return self.numbers.find(number) if worker == self.worker else None

    def _values(self) -> dict[str, Callable[[WebSocket], Any]]:
        offset = self._offset
        return {
            # From the youngest to the oldest.
            "age": lambda ws: -(opened_at(ws) + offset),
            "idle": lambda ws: -(last_message_at(ws) + offset),
            "latency": latency_of,
            "queued": queued,
            "messages_in": lambda ws: ws.messages_in,
            "messages_out": lambda ws: ws.messages_out,
            "bytes_in": lambda ws: ws.bytes_in,
            "bytes_out": lambda ws: ws.bytes_out,
            "key": lambda ws: text_of(key_of(ws)) or "",
            "route": lambda ws: ws.request.route or "",
            "address": lambda ws: format_peer(ws.remote_address),
        }

    def _matches(self, ws: WebSocket, search: str) -> bool:
        request = ws.request
        return matches(
            search,
            text_of(key_of(ws)),
            ws.subject,
            format_peer(ws.remote_address),
            request.route,
            request.path,
            request.headers.get("User-Agent"),
        )

    def _row(self, ws: WebSocket, now: float, known: dict[int, dict[str, Any]]) -> dict[str, Any]:
        """The row of a connection. What does not change in it is taken from ``known``, or added there."""
        number = self.numbers.of(ws)
        if (fixed := known.get(number)) is None:
            fixed = known[number] = self._fixed(ws, number)
        latency = latency_of(ws)
        return {
            **fixed,
            "key": text_of(key_of(ws)),
            "subject": _short(ws.subject),
            "age": round(now - opened_at(ws), 3),
            "idle": round(now - last_message_at(ws), 3),
            "latency": None if latency < 0 else round(latency, 6),
            "queued": queued(ws),
            "messages_in": ws.messages_in,
            "messages_out": ws.messages_out,
            "bytes_in": ws.bytes_in,
            "bytes_out": ws.bytes_out,
            "state": "open" if ws.is_open else "closing",
            "slow": is_slow(ws),
            "compressed": is_compressed(ws),
            "rooms": [name[:MAX_TEXT] for name in self._registry().names_of(ws)[:MAX_ROOMS]],
        }

    def _fixed(self, ws: WebSocket, number: int) -> dict[str, Any]:
        """What does not change in the row of a connection."""
        request = ws.request
        return {
            "connection": f"{self.worker}:{number}",
            "worker": self.worker,
            "address": format_peer(ws.remote_address),
            "route": request.route or "",
            "path": request.path[:MAX_PATH],
            "subprotocol": ws.subprotocol,
            "user_agent": _short(request.headers.get("User-Agent")),
        }

    # -- endings ------------------------------------------------------------------------

    async def list_endings(self, ask: dict[str, Any]) -> dict[str, Any]:
        """The last endings, newest first.

        Raises:
            AskError: The ask is not valid.
        """
        found = await find_endings([(self.worker, each) for each in self.endings.recent], ask)
        return {"worker": self.worker, **found}


def parse_connection(ask: dict[str, Any]) -> tuple[str, int]:
    """The worker and the number in the name of a connection.

    Raises:
        AskError: It is no such name.
    """
    name = ask.get("connection")
    if isinstance(name, str):
        worker, _, number = name.partition(":")
        if number.isascii() and number.isdigit() and len(number) <= 18:
            return worker, int(number)
    raise AskError("connection must be the name of a connection, such as in a row")


def _short(text: str | None) -> str | None:
    return None if text is None else text[:MAX_TEXT]


def _most(routes: dict[str, int]) -> dict[str, int]:
    """The routes with the most connections."""
    if len(routes) <= MAX_ROUTES:
        return routes
    return dict(sorted(routes.items(), key=lambda each: each[1], reverse=True)[:MAX_ROUTES])


def _memory() -> int:
    """The resident memory of this process in bytes; where the system does not tell, the largest so far."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource  # not on Windows, where no server runs

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
