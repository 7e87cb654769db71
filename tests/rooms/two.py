"""Two servers with a member each, whose bus fails."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from .house import house

__all__ = ["Two", "is_up", "two"]


class Two:
    """Two servers with a member each, and what the members were told."""

    def __init__(self, made, clients):
        self.made, self.clients = made, clients
        self.gaps = [[], []]
        self.got = [[], []]
        self.rooms = [made.room(number) for number in (0, 1)]
        self.buses = [server.rooms._registry.bus for server in made.servers]

    def all_got(self, *messages):
        return all(set(messages) <= {*got} for got in self.got)


@asynccontextmanager
async def two(url, **options):
    async with house(2, url, **options) as made:
        clients = [(await made.joined(number, key=f"user{number}"))[0] for number in (0, 1)]
        pair = Two(made, clients)
        tasks = []
        for number, server in enumerate(made.servers):

            @server.rooms.on_gap
            def on_gap(room, gap, number=number):
                pair.gaps[number].append(gap)

            async def read(number=number):
                async for message in clients[number]:
                    pair.got[number].append(message)

            tasks.append(asyncio.create_task(read()))
        yield pair
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def is_up(pair):
    return all(bus.is_connected for bus in pair.buses)
