"""The metrics of a server: counts the connections, and shows the counts of all processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..aio.inspection import Tally
from ..aio.listen import Listener
from ..aio.reactor import Reactor, reactor_of
from ..aio.websocket import WebSocket
from ..errors import ConcurrencyError
from ..http import Request, Response
from ..metrics.exposition import as_dict
from ..metrics.meter import Meter
from ..metrics.page import respond
from ..metrics.table import Block, Table
from ..metrics.totals import totals
from ..rooms.rooms import Rooms, registry_of
from ..sync.portal import Portal
from .drain.run import DrainRun

__all__ = ["Metering", "own_samples", "use_table"]

#: Seconds between two counts of what open connections have sent and received, for pages of other processes.
REFRESH_INTERVAL = 2.0


class Metering:
    """The meter of one server, and its page."""

    def __init__(
        self,
        meter: Meter,
        connections: set[WebSocket],
        rooms: Rooms,
        find_drain: Callable[[], DrainRun | None],
        find_portal: Callable[[], Portal | None],
    ) -> None:
        self.meter = meter
        self._connections = connections
        self._rooms = rooms
        self._find_drain = find_drain
        self._find_portal = find_portal
        self._listener: Listener | None = None
        self._reactor: Reactor | None = None
        # What the loops of earlier runs of the server were stalled for.
        self._stalled_before = 0.0
        #: The name of the table that other processes read, too; "" if they do not.
        self.table_name = ""
        self._refreshing: asyncio.Task[None] | None = None

    def begin(self, listener: Listener) -> None:
        """Count what ``listener`` accepts."""
        self._listener = listener
        self._reactor = reactor_of(listener.loop)
        self._stalled_before -= self._reactor.seconds_stalled
        if self.table_name:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh_often())

    def end(self) -> None:
        """End :meth:`begin`: all connections have ended."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            self._refreshing = None
        self._stalled_before += self._stalled()
        self._listener = self._reactor = None
        self.meter.refresh(self._connections, 0)
        self.meter.set_process(self._stalled_before)
        self._set_bus(serving=False)

    async def _refresh_often(self) -> None:
        while True:
            self._refresh()
            await asyncio.sleep(REFRESH_INTERVAL)

    def _stalled(self) -> float:
        return 0.0 if self._reactor is None else self._reactor.seconds_stalled

    def _refresh(self) -> dict[str, Tally]:
        if self._listener is None:
            return {}
        tallies = self.meter.refresh(self._connections, len(self._listener.lingering))
        drain, stalled = self._find_drain(), self._stalled_before + self._stalled()
        if drain is None:
            self.meter.set_process(stalled, serving=True)
        else:
            self.meter.set_process(stalled, draining=True, remaining=drain.seconds_left(0.0))
        self._set_bus(serving=True)
        return tallies

    def _set_bus(self, serving: bool) -> None:
        registry = registry_of(self._rooms)
        bus = registry.bus
        deaf, lag = (not bus.is_connected, bus.lag) if serving else (False, 0.0)
        self.meter.set_bus(bus.name, registry.lost_publications, deaf, bus.disconnections, lag)

    def snapshot(self) -> dict[str, list[dict[str, object]]]:
        """See :attr:`Server.metrics`."""
        portal = self._find_portal()
        if portal is None or portal.is_own_thread():
            self._refresh()
        else:
            # A connection that ends while another thread adds up would be counted twice, or not at all.
            with suppress(ConcurrencyError):  # the loop has ended: it has counted at its end
                portal.run(self._refresh_in_loop)
        return as_dict(self.meter.table.blocks())

    async def _refresh_in_loop(self) -> None:
        self._refresh()

    def count(self, skipped: str) -> tuple[dict[str, Tally], dict[str, int]]:
        """The connections of each route, and :func:`endwell.metrics.totals.totals`, without the route ``skipped``.

        It looks at all connections in one turn of the loop, and at each of them once.
        """
        tallies = self._refresh()
        tallies.pop(skipped, None)
        return tallies, totals(self.meter.table, skipped)

    def page(self, request: Request, allow: Sequence[str] | None) -> Response:
        """The page for Prometheus."""
        return respond(request.remote_address, request.headers, allow, self._blocks)

    def _blocks(self) -> list[Block]:
        self._refresh()
        return self.meter.table.blocks()


def use_table(metering: Metering, table: Table, name: str) -> None:
    """Count in a table that other processes read, too. ``name`` is different for each table."""
    metering.meter.use(table)
    metering.table_name = name


def own_samples(metering: Metering) -> dict[str, list[dict[str, object]]]:
    """The samples of :attr:`Server.metrics`, of this process alone."""
    metering._refresh()
    return as_dict(metering.meter.table.own_blocks())
