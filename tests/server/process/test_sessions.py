"""Sessions of several worker processes: one connection of each key stays, also when workers crash and restart."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import endwell
from tests.cli.process import PATIENCE
from tests.pair import within
from tests.server.program import eventually, running, write

SESSIONS = """
@server.sessions.joined
def joined(key, ws):
    logging.info("joined %s", key)

@server.sessions.left
def left(key, ending):
    logging.info("left %s %s", key, ending and ending.code)

@server.websocket("/user/{name}")
async def user(ws, name):
    # In the process of this connection only.
    server.sessions.grace = float(ws.request.query.get("grace", "600"))
    server.sessions.join(name, ws)
    await ws.send(f"{os.getpid()} in")
    await ws.wait_closed()

"""


def program(folder):
    marker = 'if __name__ == "__main__":'
    return write(folder, **{marker: SESSIONS + marker})


def told(served):
    return re.findall(r"(?:joined|left) ada.*", served.log)


class User:
    """A client of one user that connects again, unless its connection was replaced."""

    def __init__(self, served, name):
        self.url = served.url(f"/user/{name}")
        self.processes = []
        self.ws = None

    async def run(self):
        while True:
            async with endwell.connect(self.url, open_timeout=PATIENCE, answer_timeout=0) as self.ws:
                self.processes.append(int((await self.ws.recv()).split()[0]))
                await self.ws.wait_closed()
            if self.ws.ending.code == 4991:
                return


async def test_a_user_has_one_connection_in_all_workers_also_after_a_crash_and_a_restart(tmp_path):
    with running(program(tmp_path)) as served:
        # Connections of the same user, until they have reached both workers.
        workers, last = set(), None
        async with asyncio.timeout(PATIENCE):
            while len(workers) < 2 or not last.is_open:
                ws, process, _ = await served.connect("/user/ada")
                workers.add(process)
                if last is not None:
                    assert (await within(last.closed, PATIENCE)).code == 4991
                last = ws
        await eventually(lambda: told(served) == ["joined ada"])

        # Its worker crashes. The user returns within the grace.
        os.kill(process, signal.SIGKILL)
        assert (await within(last.closed, PATIENCE)).code == 1006
        user = User(served, "ada")
        running_user = asyncio.create_task(user.run())
        await eventually(lambda: user.processes)
        served.logged("a new worker starts")

        # A rolling restart moves it to another process.
        served.send(signal.SIGHUP)
        served.logged("the new workers are ready")
        await eventually(lambda: len(user.processes) >= 2)
        assert told(served) == ["joined ada"]
        assert user.ws.is_open

        # The process of a user that does not return crashes: another process says that it has left.
        ws, process, _ = await served.connect("/user/eve?grace=0.01")
        served.logged("joined eve")
        os.kill(process, signal.SIGKILL)
        served.logged("left eve None")
        running_user.cancel()
        await asyncio.gather(running_user, return_exceptions=True)
        status, _ = await asyncio.to_thread(served.finish)
    assert status == 0
    assert len(re.findall("(?:joined|left) eve", served.log)) == 2
