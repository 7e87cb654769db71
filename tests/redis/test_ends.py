"""The end of a process: what it had is free at once, and nothing that comes late takes it again."""

from __future__ import annotations

from endwell.rooms.redis import presence
from tests.pair import until

from .server import shared_server
from .test_leases import quick
from .test_many_rooms import processes

__all__ = ["quick"]


async def test_a_process_that_has_stopped_renews_nothing_while_its_connections_are_closed(monkeypatch):
    redis = shared_server()
    url = f"{redis.url}?prefix=stopped"
    async with processes(url, url) as (first, second):
        assert await first.bus.reserve(0, 3, 4) == (3, 3)
        link, stop = first.link, first.link.stop
        monkeypatch.setattr(presence, "RENEW_INTERVAL", 0.0)  # it renews in each turn of the loop
        renewals = len(second.results(presence.LEASE))

        async def late():
            # The network is slow.
            await until(lambda: len(second.results(presence.LEASE)) > renewals + 50)
            await stop()

        link.stop = late
        await first.bus.stop()
        assert await second.bus.reserve(0, 4, 4) == (4, 4)
        await until(lambda: not first.is_known(redis))
