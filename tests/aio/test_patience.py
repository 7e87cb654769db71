"""A stall of this process does not count against a peer that has to send something before a core judges it."""

from __future__ import annotations

import time

import pytest

from endwell import Server
from tests.asgi.events import body, body_of, start
from tests.hostile.test_proxies import V1
from tests.http1 import asked, request_of
from tests.pair import loop_turns, nothing_left_behind, until
from tests.raw import RawPeer

#: No stall of the machine that the detector does not notice is longer.
TIMEOUT = 2.5


async def stall():
    """Block the loop for longer than the timeout, and let it notice that."""
    time.sleep(TIMEOUT + 1.5)  # noqa: ASYNC251
    await loop_turns(10)


async def application(scope, receive, send):
    content = await body_of(receive)
    await send(start())
    await send(body(content))


@pytest.mark.parametrize("kind", ["page", "application"])
async def test_a_body_may_come_after_a_stall(kind, transport):
    server = Server(body_timeout=TIMEOUT)
    if kind == "page":

        @server.route("/", methods=["POST"])
        async def page(request):
            return await request.body()

    else:
        server.mount("/", application, lifespan="off")
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        await peer.send(request_of("POST", "/", b"hello")[:-1])
        await until(lambda: server._listener.openings)
        (opening,) = server._listener.openings
        await until(lambda: opening.request and opening.request_body().is_arriving)
        await stall()
        await peer.send(b"o")
        assert (await peer.answer()).body == b"hello"


async def test_a_preamble_may_come_after_a_stall():
    server = Server(proxy_protocol=True, open_timeout=TIMEOUT)
    async with nothing_left_behind(), server.serving():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(V1[:-1])
            await until(lambda: server._listener.openings)
            await peer.until_acknowledged()
            await stall()
            await peer.write(V1[-1:] + peer.request("/nowhere"))
            assert (await peer.read_head()).startswith("HTTP/1.1 404 ")
            while await peer.more():
                pass
