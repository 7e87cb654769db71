"""A page that says whether to send somebody here, as Kubernetes and load balancers ask for it."""

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
    """Status and Retry-After of the health page, asked for over HTTP."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE) as answer:
            return answer.status, answer.headers["Retry-After"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Retry-After"]


@pytest.mark.parametrize("workers", [None, 2])
async def test_any_page_turns_503_while_the_server_drains(workers, tmp_path):
    # No limit of the drain passes before the test has asked.
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


async def test_during_a_restart_it_is_never_anything_but_200(tmp_path):
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
