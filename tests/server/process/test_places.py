"""max_connections of several worker processes: exact in a storm, after a crash and during a rolling restart."""

from __future__ import annotations

import asyncio
import os
import signal

import endwell
from endwell.errors import HandshakeError
from tests.cli.process import PATIENCE
from tests.pair import within
from tests.server.program import eventually, running, write

LIMIT = 4


async def attempt(served):
    """A client and the process that serves it, or None if it was refused."""
    try:
        ws = await endwell.connect(served.url(), open_timeout=PATIENCE, answer_timeout=0)
    except HandshakeError as error:
        assert error.response.status == 503, error  # noqa: PT017 (it is one of the two results)
        return None
    return ws, int((await ws.recv()).split()[0])


async def storm(served, count):
    found = await asyncio.gather(*(attempt(served) for _ in range(count)))
    return [each for each in found if each is not None]


class Client:
    """A client that connects again after the end of its connection and after a refusal."""

    def __init__(self, served, ws):
        self.served, self.ws = served, ws
        self.refused = self.returned = 0

    async def run(self):
        while True:
            await self.ws.wait_closed()
            while (found := await attempt(self.served)) is None:
                self.refused += 1
            self.ws, _ = found
            self.returned += 1


async def test_the_limit_holds_for_all_workers_and_through_crashes_and_restarts(tmp_path):
    file = write(tmp_path, **{"endwell.Server()": f"endwell.Server(max_connections={LIMIT})"})
    with running(file) as served:
        clients = await storm(served, 16)
        assert len(clients) == LIMIT
        assert await storm(served, 8) == []

        # The places of a worker that crashes are free at once.
        killed = clients[0][1]
        os.kill(killed, signal.SIGKILL)
        lost = [ws for ws, process in clients if process == killed]
        for ws in lost:
            assert (await within(ws.closed, PATIENCE)).code == 1006
        served.logged("a new worker starts")
        new = await storm(served, 16)
        assert len(new) == len(lost)
        clients = [*new, *(each for each in clients if each[1] != killed)]

        # In a rolling restart, the connections of the old workers count until they end.
        returning = [Client(served, ws) for ws, _ in clients]
        tasks = [asyncio.create_task(each.run()) for each in returning]
        served.send(signal.SIGHUP)
        served.logged("the new workers are ready")
        await eventually(lambda: all(each.returned for each in returning))
        assert await storm(served, 8) == []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        status, _ = await asyncio.to_thread(served.finish)
    assert status == 0
