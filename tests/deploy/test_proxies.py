"""endwell behind nginx and HAProxy, configured as in docs/howto/deploy.md."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress

import pytest

import endwell
from tests.deploy.page import block, seconds
from tests.deploy.proxies import running
from tests.pair import until, within
from tests.ports import free_port
from tests.raw import BOUND

ANY = ["*"]


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request, tmp_path):
    """Starts a proxy: ``proxy(port, port, idle=seconds)``."""
    return lambda one, two, **keywords: running(request.param, tmp_path, one, two, **keywords)


class Chat:
    """A server, and the endings that it recorded."""

    def __init__(self, **keywords):
        self.server = endwell.Server(**{"origins": ANY, **keywords})
        self.endings = asyncio.Queue()
        self.server.on_close(lambda ws, ending: self.endings.put_nowait(ending))

        @self.server.websocket("/")
        async def chat(ws):
            await ws.send(
                json.dumps(
                    {
                        "port": self.server.port,
                        "remote": ws.remote_address[0],
                        "forwarded": ws.request.headers.get_all("X-Forwarded-For"),
                        "host": ws.request.headers["Host"],
                    }
                )
            )
            async for message in ws:
                if message == "close":
                    await ws.close(4001, "as you wish")
                await ws.send(message)

        @self.server.websocket("/kept")
        async def kept(ws):
            await ws.send(str(self.server.port))
            while not self.released.is_set():
                try:
                    await self.released.wait()
                except asyncio.CancelledError:
                    pass

        @self.server.get("/healthz")
        async def healthz(request):
            self.asked += 1
            return "ok"

        self.asked = 0
        self.released = asyncio.Event()

    async def ending(self):
        return await within(self.endings.get())


@asynccontextmanager
async def served(proxy, chat, **keywords):
    """One server behind the proxy; no server runs in place of the other."""
    async with chat.server.serving():
        with proxy(chat.server.port, free_port(), **keywords) as front:
            yield front


def connect(front, path="/", **keywords):
    return endwell.connect(front.url(path), ssl=front.tls, **keywords)


async def test_a_proxy_overwrites_forwarding_headers_of_the_client(proxy):
    chat = Chat()
    invented = {"X-Forwarded-For": "192.0.2.1"}
    async with served(proxy, chat) as front, connect(front, additional_headers=invented) as ws:
        seen = json.loads(await within(ws.recv()))
        assert seen["remote"] == "127.0.0.1"  # the address of the proxy, which is local too
        assert seen["forwarded"] == ["127.0.0.1"]
        assert seen["host"] == f"127.0.0.1:{front.port}"
        for message in ("hello", b"\x00\xff" * 50_000):
            await ws.send(message)
            assert await within(ws.recv()) == message


async def test_with_proxy_headers_a_page_connects_to_its_own_host_and_a_client_cannot_invent_another(proxy):
    chat = Chat(proxy_headers=["127.0.0.1"], origins=None)
    async with served(proxy, chat) as front:
        for invented in (
            {},
            {"X-Forwarded-Proto": "http"},
            {"X-Forwarded-Host": "evil.example"},
            {"Forwarded": "for=192.0.2.1;proto=http;host=evil.example"},
        ):
            headers = {"Origin": front.origin, **invented}
            async with connect(front, additional_headers=headers) as ws:
                seen = json.loads(await within(ws.recv()))
            assert (seen["remote"], seen["host"]) == ("127.0.0.1", f"127.0.0.1:{front.port}")
        evil = {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}
        with pytest.raises(endwell.HandshakeRejected, match="403"):
            await within(connect(front, additional_headers=evil))


async def test_proxies_forward_close_codes_and_reasons_in_both_directions(proxy):
    chat = Chat()
    async with served(proxy, chat) as front:
        ws = await within(connect(front))
        await ws.send("close")
        ending = await within(ws.closed)
        assert (ending.received, ending.clean) == (endwell.Close(4001, "as you wish"), True)
        assert (await chat.ending()).clean
        ws = await within(connect(front))
        await ws.close(4002, "my own wish")
        ending = await chat.ending()
        assert (ending.received, ending.clean) == (endwell.Close(4002, "my own wish"), True)


async def test_the_close_of_a_drain_passes_the_proxy(proxy):
    chat = Chat()
    async with served(proxy, chat) as front:
        connections = [await within(connect(front)) for _ in range(5)]
        # A connection whose client answers nothing for a fifth of the deadline is aborted.
        report = await within(chat.server.drain(deadline=8 * BOUND))
        for ws in connections:
            ending = await within(ws.closed)
            assert ending.received == endwell.Close(1001, "server stopping; retry 1-2s")
            assert ending.clean
        assert report.endings == {"clean": 5}


async def test_new_connections_go_to_the_server_that_does_not_drain(proxy):
    one, two = Chat(), Chat()
    async with one.server.serving(), two.server.serving():
        with proxy(one.server.port, two.server.port) as front:
            kept = [await within(connect(front, "/kept")) for _ in range(4)]
            assert {int(await within(ws.recv())) for ws in kept} == {one.server.port, two.server.port}
            draining = asyncio.create_task(one.server.drain(deadline=8 * BOUND))
            await asyncio.sleep(0)
            for _ in range(20):
                async with connect(front) as ws:
                    assert json.loads(await within(ws.recv()))["port"] == two.server.port
            one.released.set()
            two.released.set()
            await within(draining)
            for ws in kept:
                await within(ws.close())


async def test_a_proxy_ends_an_idle_connection(proxy):
    chat = Chat(ping_interval=None)
    async with served(proxy, chat, idle=3) as front:
        ws = await within(connect(front, ping_interval=None))
        assert (await within(ws.closed)).code == 1006


async def test_keepalive_keeps_an_idle_connection_through_a_proxy(proxy):
    # The timeout of the proxy continues while this process stalls. So one of several attempts has to run
    # undisturbed.
    chat = Chat(ping_interval=0.3)
    async with served(proxy, chat, idle=2) as front:
        for _ in range(10):
            with suppress(endwell.ConnectionClosed, endwell.HandshakeError):
                async with connect(front, ping_interval=None) as ws:
                    await within(ws.recv())
                    # Twice the idle timeout of the proxy.
                    with pytest.raises(TimeoutError):
                        await within(ws.recv(), 4)
                    return
    raise AssertionError("the proxy always cut it")


def test_the_proxies_idle_timeouts_are_longer_than_ping_interval():
    silence = endwell.Options().ping_interval
    for language, setting in [
        ("nginx", "proxy_read_timeout"),
        ("nginx", "proxy_send_timeout"),
        ("haproxy", "timeout tunnel"),
    ]:
        assert seconds(block(language), setting) > 2 * silence


async def test_a_page_behind_a_tls_proxy_must_be_listed_in_origins(proxy):
    chat = Chat(origins=None)
    async with served(proxy, chat) as front:
        with pytest.raises(endwell.HandshakeRejected, match="403"):
            await within(connect(front, additional_headers={"Origin": front.origin}))
        chat.server.options = chat.server.options.replace(origins=[front.origin])
        async with connect(front, additional_headers={"Origin": front.origin}) as ws:
            assert await within(ws.recv())


async def test_haproxy_requests_the_health_page_and_avoids_a_draining_server(tmp_path):
    one, two = Chat(), Chat()
    async with one.server.serving(), two.server.serving():
        with running("haproxy", tmp_path, one.server.port, two.server.port) as front:
            kept = [await within(connect(front, "/kept")) for _ in range(4)]
            # HAProxy considers a server down after three failed checks ("fall").
            await until(lambda: min(one.asked, two.asked) > 3)
            assert "DOWN" not in front.log.read_text()
            draining = asyncio.create_task(one.server.drain(deadline=8 * BOUND))
            await until(lambda: "Server chat/one is DOWN" in front.log.read_text())
            assert "code: 503" in front.log.read_text()
            assert "Server chat/two is DOWN" not in front.log.read_text()
            one.released.set()
            two.released.set()
            await within(draining)
            for ws in kept:
                await within(ws.close())
            assert len(kept) == 4
