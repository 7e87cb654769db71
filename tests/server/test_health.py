"""A health page, as Kubernetes and load balancers request it."""

from __future__ import annotations

import asyncio
import signal
import urllib.error
import urllib.request

import pytest

import endwell
from tests.cli.process import PATIENCE
from tests.pair import within
from tests.server.program import release, running, write


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
            assert (await within(ws.closed)).code == 1001
        assert (await asyncio.to_thread(program.finish, None))[0] == 0


async def test_a_health_page_gives_only_200_during_a_restart(tmp_path):
    with running(write(tmp_path, workers=1)) as program:
        port, seen, over = program.port, [], asyncio.Event()

        async def ask():
            while not over.is_set():
                seen.append(await asyncio.to_thread(health, port))

        asking = asyncio.create_task(ask())
        program.send(signal.SIGHUP)
        await asyncio.to_thread(program.logged, "workers exited: 1; drained")
        over.set()
        await asking
        assert set(seen) == {(200, None)}
        assert len(seen) > 1
        assert (await asyncio.to_thread(program.finish))[0] == 0
