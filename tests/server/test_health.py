"""A health page, as Kubernetes and load balancers request it."""

from __future__ import annotations

import asyncio
import signal
import urllib.error
import urllib.request

import pytest

import endwell
from endwell.rooms.local import LocalBus
from endwell.rooms.rooms import use_bus
from tests.cli.process import PATIENCE
from tests.pair import within
from tests.raw import RawPeer
from tests.server.program import eventually, release, running, write


def health(port):
    """Status and Retry-After of the health page over HTTP."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE) as answer:
            return answer.status, answer.headers["Retry-After"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Retry-After"]


@pytest.mark.parametrize("workers", [None, 2])
async def test_a_health_page_gives_503_during_a_drain(workers, tmp_path):
    # No limit of the drain expires before the test has requested the page.
    file = write(tmp_path, workers=workers, deadline=3600.0)
    with running(file) as program:
        assert health(program.port) == (200, None)
        kept = [await endwell.connect(program.url("/held"), open_timeout=PATIENCE) for _ in range(8)]
        program.send(signal.SIGTERM)
        program.logged("stopping: [0-9] connections?", workers or 1)
        status, retry = await asyncio.to_thread(health, program.port)
        assert status == 503
        assert int(retry) >= 1
        release(file)
        for ws in kept:
            assert (await within(ws.closed, PATIENCE)).code == 1001
        assert (await asyncio.to_thread(program.finish, None))[0] == 0


async def test_a_health_page_gives_only_200_during_a_restart(tmp_path):
    with running(write(tmp_path, workers=1)) as program:
        port, seen, over = program.port, [], asyncio.Event()

        async def ask():
            while not over.is_set():
                seen.append(await asyncio.to_thread(health, port))

        asking = asyncio.create_task(ask())
        await eventually(lambda: seen)
        program.send(signal.SIGHUP)
        await asyncio.to_thread(program.logged, "workers exited: 1; drained")
        over.set()
        await asking
        assert set(seen) == {(200, None)}
        assert len(seen) > 1
        assert (await asyncio.to_thread(program.finish))[0] == 0


class AwayBus(LocalBus):
    """A bus that the test disconnects."""

    is_connected = True


@pytest.mark.parametrize("path", ["/healthz", "/ready"])
async def test_a_server_is_ready_while_it_serves_and_its_bus_is_connected(path):
    server = endwell.Server(allowed_hosts=["chat.example.org"])
    bus = AwayBus(1 << 20)
    use_bus(server.rooms, bus)
    server.health(*([] if path == "/healthz" else [path]))
    assert not server.is_ready
    async with server.serving(grace=1.0):
        for connected in (True, False, True):
            bus.is_connected = connected
            assert server.is_ready == connected
            with await RawPeer.connect_tcp(server.port) as peer:
                await peer.write(f"GET {path} HTTP/1.1\r\nHost: 10.0.0.7\r\n\r\n".encode())
                head = await peer.read_head()
            assert head.startswith("HTTP/1.1 200" if connected else "HTTP/1.1 503")
        await server.drain(deadline=1.0)
        assert not server.is_ready
