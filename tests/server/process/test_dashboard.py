"""The dashboard of several worker processes: it shows all, drains one, and restarts all."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import endwell
from endwell.server.dashboard.feed import SUBPROTOCOL
from tests.cli.process import PATIENCE, command, finish
from tests.pair import within
from tests.server.dashboard.client import Client
from tests.server.program import running, write

MARKER = 'if __name__ == "__main__":'


#: No process counts as missing, and nothing that one leaves gets lost, because the machine is busy.
PATIENT = """
from endwell.server.dashboard import workers
workers.TIME_LIMIT = workers.START_TIME = workers.LEAVE_TIME = 10.0
"""


def program(folder, changes=PATIENT):
    return write(folder, **{MARKER: f"server.dashboard()\n{changes}\n{MARKER}"})


def is_complete(summary):
    """Whether both workers have answered. One that has just ended, or begins, may be among those that were asked."""
    return len(summary["workers"]) == 2 and not summary["missing_workers"]


def pids_of(summary):
    return {worker["pid"] for worker in summary["workers"]}


async def client_of(program):
    """A feed."""
    how = {"subprotocols": [SUBPROTOCOL], "open_timeout": PATIENCE}
    return Client(await endwell.connect(program.url("/_endwell/feed"), **how), PATIENCE)


async def workers_of(program, reached):
    """The workers of the first summary for which ``reached(summary)`` is true. The feed may end with its worker."""
    while True:
        client = await client_of(program)
        try:
            summary = await client.summary()
            while not reached(summary):
                summary = (await client.receive())["summary"]
        except endwell.ConnectionClosed:
            continue
        finally:
            await client.ws.close()
        return {worker["pid"]: worker for worker in summary["workers"]}


async def connect_to_both_workers(program):
    found = {}
    while len(found) < 2:
        ws, process, _ = await program.connect()
        if process in found:
            await ws.close()
        else:
            found[process] = ws
    return found


async def test_a_worker_is_drained_and_all_are_restarted(tmp_path):
    with running(program(tmp_path)) as served:
        apps = await connect_to_both_workers(served)
        before = await workers_of(served, is_complete)
        assert before.keys() == apps.keys()
        assert [worker["open"] for worker in before.values()] == [1, 1]
        # The supervisor has the listening sockets, too.
        with command("top", "--once", "--json", str(served.process.pid)) as shown:
            status, out, err = await asyncio.to_thread(finish, shown)
        assert (status, err) == (0, "")
        assert {worker["pid"] for worker in json.loads(out)["summary"]["workers"]} == before.keys()
        drained, stays = before
        client = await client_of(served)
        assert await client.ask("drain", worker=before[drained]["worker"]) == {"done": True}
        await client.ws.close()
        assert await within(apps[drained].read(), PATIENCE) is None
        assert apps[drained].ending.received.code == 1012
        after = await workers_of(
            served, lambda summary: is_complete(summary) and drained not in pids_of(summary)
        )
        assert stays in after
        assert apps[stays].is_open
        served.logged("the dashboard asks the supervisor to drain, asked by 127.0.0.1")
        served.logged(rf"worker \d \(process {drained}\) is to drain: a new worker starts")

        client = await client_of(served)
        assert await client.ask("restart") == {"done": True}
        assert await within(apps[stays].read(), PATIENCE) is None
        assert apps[stays].ending.received.code == 1012
        await client.ws.close()
        renewed = await workers_of(
            served, lambda summary: is_complete(summary) and not after.keys() & pids_of(summary)
        )
        assert len(renewed) == 2
        served.logged("restarting: the new workers are ready")
        status, log = served.finish()
    assert status == 0
    assert "Traceback" not in log


async def endings_of(program, reached):
    """The first summary for which ``reached(summary)`` is true, and all endings. The feed may end with its worker."""
    while True:
        client = await client_of(program)
        try:
            summary = await client.summary()
            while not reached(summary):
                summary = (await client.receive())["summary"]
            return summary, (await client.ask("endings"))["rows"]
        except endwell.ConnectionClosed:
            continue
        finally:
            await client.ws.close()


async def test_endings_of_workers_stay_after_rolling_restarts(tmp_path):
    with running(program(tmp_path)) as served:
        apps, closed = {}, 0
        while len(apps) < 2:
            ws, process, _ = await served.connect()
            if process in apps:
                await ws.close(4711, "bye")
                closed += 1
            else:
                apps[process] = ws
        before, _ = await endings_of(
            served,
            lambda summary: is_complete(summary) and sum(summary["endings"]["by_cause"].values()) == closed,
        )
        assert {worker["pid"] for worker in before["workers"]} == apps.keys()
        addresses = ["{}:{}".format(*ws.local_address) for ws in apps.values()]
        old = apps.keys()
        # The second generation has no endings of its own.
        for round_ in 1, 2:
            served.send(signal.SIGHUP)
            await asyncio.to_thread(served.logged, "workers exited: 2", round_)
            after, rows = await endings_of(served, is_complete)
            new = {worker["pid"] for worker in after["workers"]}
            assert not new & old
            old = new
            assert after["endings"]["by_cause"] == {**before["endings"]["by_cause"], "server_drained": 2}
            by_code = {"1012": 2, "4711": closed} if closed else {"1012": 2}
            assert after["endings"]["by_code"] == by_code
            assert sum(sum(row[1].values()) for row in after["endings"]["hours"]) == closed + 2
            assert len(rows) == closed + 2
            for address in addresses:
                [row] = [row for row in rows if row["address"] == address]
                assert row["ending"]["cause"] == "server_drained"
        served.finish()


async def test_a_worker_that_is_stopped_is_missing_and_one_that_was_killed_is_replaced(tmp_path):
    with running(program(tmp_path, "")) as served:
        apps = await connect_to_both_workers(served)
        # The feed is served by one of them; the other one is stopped.
        client = await client_of(served)
        summary = await client.summary()
        while not is_complete(summary):
            summary = (await client.receive())["summary"]
        while (answer := await client.ask("list"))["missing_workers"]:
            pass  # its answer was late
        assert answer["total"] == 2
        port = client.ws.local_address[1]
        owner = next(each for each in apps if is_connected(each, port))
        other = next(each for each in apps if each != owner)
        os.kill(other, signal.SIGSTOP)
        try:
            while not (summary := (await client.receive())["summary"])["missing_workers"]:
                pass
            assert [worker["pid"] for worker in summary["workers"]] == [owner]
        finally:
            os.kill(other, signal.SIGKILL)
        while True:
            summary = (await client.receive())["summary"]
            found = {worker["pid"] for worker in summary["workers"]}
            if len(found) == 2 and not summary["missing_workers"]:
                break
        assert other not in found
        await client.ws.close()
        await apps[owner].close()
        served.finish()


async def test_totals_never_go_back(tmp_path):
    """Neither when a worker is killed nor in a rolling restart."""
    last = {}

    async def summary_of(program, reached):
        """The first summary for which ``reached(summary)`` is true. All before it are checked."""

        def checked(summary):
            totals = summary["totals"]
            assert all(totals[name] >= count for name, count in last.items()), (last, totals)
            last.update(totals)
            return reached(summary)

        return (await endings_of(program, checked))[0]

    with running(program(tmp_path)) as served:
        apps = await connect_to_both_workers(served)
        for ws in apps.values():
            for number in range(10):
                await ws.send(str(number))
                assert await within(ws.recv(), PATIENCE) == str(number)
        counted = await summary_of(
            served,
            lambda summary: all(
                summary["totals"][name] == sum(worker[name] for worker in summary["workers"])
                for name in ("messages_in", "messages_out")
            ),
        )
        assert counted["totals"]["messages_in"] == 20
        sent = counted["totals"]["messages_out"]
        killed, stays = apps
        os.kill(killed, signal.SIGKILL)
        after = await summary_of(
            served,
            lambda summary: is_complete(summary) and killed not in pids_of(summary),
        )
        assert (after["totals"]["messages_in"], after["totals"]["messages_out"]) == (20, sent)
        await apps[stays].send("last")
        assert await within(apps[stays].recv(), PATIENCE) == "last"
        served.send(signal.SIGHUP)
        await asyncio.to_thread(served.logged, "workers exited: 2")
        after = await summary_of(served, is_complete)
        assert (after["totals"]["messages_in"], after["totals"]["messages_out"]) == (21, sent + 1)
        served.finish()


def is_connected(process, port):
    """Whether a process has the server's end of the TCP connection from ``port``."""
    inodes = set()
    with open("/proc/net/tcp") as file:
        for line in file.readlines()[1:]:
            fields = line.split()
            if int(fields[2].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for name in os.listdir(f"/proc/{process}/fd"):
        try:
            if os.readlink(f"/proc/{process}/fd/{name}") in inodes:
                return True
        except OSError:
            continue
    return False
