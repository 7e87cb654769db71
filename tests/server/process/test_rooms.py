"""Rooms of several worker processes: restarts and crashes lose no publication, and name what they lose."""

from __future__ import annotations

import asyncio
import os
import signal

import endwell
from endwell.rooms import Position
from tests.cli.process import PATIENCE
from tests.pair import within
from tests.server.program import eventually, running, write

ROOMS = """
from endwell.rooms import History

server.rooms.configure("*", history=History(messages=100_000), grace=0.2)

@server.rooms.left
async def left(room, present):
    await room.publish(f"left {present.key}")

@server.websocket("/room")
async def room(ws):
    room, query = server.rooms["a"], ws.request.query
    membership = await room.join(ws, since=query.get("since"), key=query.get("key"))
    await ws.send(f"{os.getpid()} {membership.position} {membership.arrived!r}")
    await ws.wait_closed()

@server.websocket("/publish")
async def publish(ws):
    async for message in ws:
        receipt = await server.rooms["a"].publish(message)
        await ws.send(str(receipt.position.sequence))

@server.websocket("/present")
async def present(ws):
    async for _ in ws:
        await ws.send(" ".join(each.key for each in await server.rooms["a"].presence()))

"""


def program(folder):
    marker = 'if __name__ == "__main__":'
    return write(folder, **{marker: ROOMS + marker})


class Member:
    """A member that returns each time with its position, and what it has received."""

    def __init__(self, url):
        self.url = url
        self.position = None
        self.messages = []
        self.found = []
        self.processes = []

    async def run(self):
        while True:
            since = "" if self.position is None else f"?since={self.position}"
            async with endwell.connect(self.url + since, open_timeout=PATIENCE) as ws:
                async for message in ws:
                    self.receive(message)
            if ws.ending.code == 1000:
                return

    def receive(self, message):
        process, _, rest = message.partition(" ")
        if not process.isdigit() or not rest:  # a publication
            self.messages.append(message)
            if self.position is not None:
                self.position = Position(self.position.epoch, self.position.sequence + 1)
            return
        position, _, found = rest.partition(" ")
        self.processes.append(process)
        self.found.append(found)
        if self.position is not None:
            # The publications that are sent again come before this message.
            assert Position.parse(position) == self.position
        self.position = Position.parse(position)


async def publish(url, count, pause):
    """Publish numbers; each is published once or, if the connection ended meanwhile, perhaps."""
    number = 0
    while number < count:
        async with endwell.connect(url, open_timeout=PATIENCE) as ws:
            while number < count:
                try:
                    await ws.send(f"n{number}")
                    number += 1
                    await ws.recv()
                except endwell.ConnectionClosed:
                    break
                await asyncio.sleep(pause)


async def test_a_rolling_restart_under_load_loses_and_repeats_no_publication(tmp_path):
    with running(program(tmp_path)) as served:
        members = [Member(served.url("/room")) for _ in range(6)]
        tasks = [asyncio.create_task(member.run()) for member in members]
        await eventually(lambda: all(member.position for member in members))
        start = members[0].position
        publishing = asyncio.create_task(publish(served.url("/publish"), 300, 0.005))
        await eventually(lambda: all(len(member.messages) > 20 for member in members))
        served.send(signal.SIGHUP)
        served.logged("the new workers are ready")
        async with asyncio.timeout(PATIENCE):
            await publishing
        # An old worker may be late: until it has ended, it may not have told its members yet.
        await asyncio.to_thread(served.logged, "workers exited: 2")
        async with endwell.connect(served.url("/publish"), open_timeout=PATIENCE) as ws:
            await ws.send("last")
            last = int(await within(ws.recv(), PATIENCE))
        await eventually(lambda: all(member.messages[-1:] == ["last"] for member in members))
        witness = Member(served.url(f"/room?since={start}"))
        witness.position = None
        task = asyncio.create_task(witness.run())
        await eventually(lambda: witness.found)
        for each in (*tasks, task):
            each.cancel()
        await asyncio.gather(*tasks, task, return_exceptions=True)
        status, _ = await asyncio.to_thread(served.finish)
    assert status == 0
    assert len(witness.messages) == last
    assert len({*witness.messages}) == last
    for member in members:
        assert member.messages == witness.messages
        # Each member was moved to a new worker, and has missed nothing.
        assert len({*member.processes}) > 1
        assert all(found.startswith(("Fresh", "Resumed")) for found in member.found)


async def test_the_members_of_a_worker_that_crashes_have_left_and_the_others_are_told(tmp_path):
    with running(program(tmp_path)) as served:
        clients = {}
        async with asyncio.timeout(PATIENCE):
            while len(clients) < 2:
                ws = await endwell.connect(served.url(f"/room?key=k{len(clients)}"), open_timeout=PATIENCE)
                process = int((await ws.recv()).split()[0])
                if process not in clients:
                    clients[process] = ws
        (killed, gone), (_, kept) = clients.items()
        # The process may not have told the supervisor yet what it has told the client.
        async with (
            endwell.connect(served.url("/present"), open_timeout=PATIENCE) as ws,
            asyncio.timeout(PATIENCE),
        ):
            await ws.send("")
            while "k0" not in (await ws.recv()).split():
                await ws.send("")
        os.kill(killed, signal.SIGKILL)
        assert (await within(gone.closed, PATIENCE)).code == 1006
        while await within(kept.recv(), PATIENCE) != "left k0":
            pass
        status, _ = await asyncio.to_thread(served.finish)
    assert status == 0
