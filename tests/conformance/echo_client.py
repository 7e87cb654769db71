"""The client under test: it echoes every message of every case. Arguments: URL AGENT."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import endwell

#: Above the 16 MiB of Autobahn's largest message.
MAX_SIZE = 64 * 2**20


async def main(url: str, agent: str) -> None:
    async with endwell.connect(f"{url}/getCaseCount") as ws:
        count = int(await ws.recv())
    for case in range(1, count + 1):
        async with endwell.connect(f"{url}/runCase?case={case}&agent={agent}", max_size=MAX_SIZE) as ws:
            with suppress(endwell.ConnectionClosed):
                async for message in ws:
                    await ws.send(message)
    async with endwell.connect(f"{url}/updateReports?agent={agent}") as ws:
        await ws.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
