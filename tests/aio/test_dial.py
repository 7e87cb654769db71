"""connect(), cancelled or timed out at every stage."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from endwell import Cause, Close, HandshakeError, Initiator, TcpEnd, connect
from tests.pair import nothing_left_behind, within
from tests.raw import HOST, PLAIN, RawServer, switching_protocols, wss


async def opened(uri, transport, **options):
    return await connect(uri, ssl=transport.client, **options)


@asynccontextmanager
async def a_server_that_does_not_accept():
    """Yields the URI of a server whose accept queue is full, so that connecting never ends."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen(0)
        queue = []
        try:
            for _ in range(3):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(listening.getsockname())
                queue.append(sock)
            yield f"ws://{HOST}:{listening.getsockname()[1]}/"
        finally:
            for sock in queue:
                sock.close()


@asynccontextmanager
async def half_open(stage):
    """Yields a function that starts a client, which stops at ``stage``."""
    transport = wss() if "TLS" in stage else PLAIN
    if stage == "TCP":
        async with a_server_that_does_not_accept() as uri:
            yield lambda **options: opened(uri, transport, **options), None
        return
    with RawServer(transport.server) as listening:
        if stage in PROXIES:
            proxy = f"{PROXIES[stage]}://{listening.uri.partition('://')[2]}"
            how = {"proxy": proxy, "proxy_ssl": transport.client if "TLS" in stage else None}
            yield lambda **options: opened(f"ws://{HOST}:1/", PLAIN, **how, **options), listening
            return
        yield lambda **options: opened(listening.uri, transport, **options), listening


#: The stages at which the proxy of a scheme does not answer.
PROXIES = {"CONNECT": "http", "TLS with a proxy": "https", "SOCKS": "socks5"}
STAGES = ["TCP", "TLS", "HTTP", *PROXIES]


@pytest.mark.parametrize("stage", STAGES)
async def test_open_timeout_covers_all_stages_together(stage):
    async with half_open(stage) as (connecting, _), nothing_left_behind():
        with pytest.raises(HandshakeError) as raised:
            await within(connecting(open_timeout=2.5))
    ending = raised.value.ending
    assert raised.value.phase == {"TCP": "connect", "TLS": "tls", "HTTP": "http"}.get(stage, "proxy")
    assert (ending.cause, ending.initiator) == (Cause.HANDSHAKE_FAILED, Initiator.LOCAL)
    # Not the default of 10 s.
    assert 2.49 <= ending.duration < 9.0
    assert ending.tcp is (TcpEnd.NONE if stage == "TCP" else TcpEnd.TIMEOUT)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_cancelled_connect_leaves_nothing_behind(stage):
    async with half_open(stage) as (connecting, _), nothing_left_behind():
        task = asyncio.ensure_future(connecting())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_connect_cancelled_as_it_opens_closes_the_connection():
    with RawServer() as listening:
        async with nothing_left_behind():
            task = asyncio.ensure_future(opened(listening.uri, PLAIN))
            with await listening.accept_tcp() as peer:
                head = await peer.read_head()
                peer.send_at_once(switching_protocols(head))
                while not task._fut_waiter.done():  # the response has arrived, the task has not resumed yet
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                seen = await peer.read_to_the_end()
    assert seen.close == Close(1001)


async def test_a_connect_cancelled_just_before_it_opens_closes_the_connection(caplog):
    with RawServer() as listening:
        async with nothing_left_behind():
            task = asyncio.ensure_future(opened(listening.uri, PLAIN))
            with await listening.accept_tcp() as peer:
                head = await peer.read_head()
                # In one iteration of the loop: the cancellation first, then the response is read.
                peer.send_at_once(switching_protocols(head))
                asyncio.get_running_loop().call_soon(task.cancel)
                with pytest.raises(asyncio.CancelledError):
                    await task
                seen = await peer.read_to_the_end()
    assert seen.close == Close(1001)
    assert caplog.text == ""


async def test_connection_refused_is_reported_as_a_network_error():
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        async with nothing_left_behind():
            with pytest.raises(HandshakeError) as raised:
                await within(opened(f"ws://{HOST}:{sock.getsockname()[1]}/", PLAIN))
    ending = raised.value.ending
    assert (ending.cause, ending.initiator, ending.tcp) == (
        Cause.NETWORK_ERROR,
        Initiator.NETWORK,
        TcpEnd.NONE,
    )
    assert isinstance(ending.exception, ConnectionRefusedError)
    assert raised.value.__cause__ is ending.exception


async def test_frames_received_with_the_101_are_not_lost():
    with RawServer() as listening:
        task = asyncio.ensure_future(opened(listening.uri, PLAIN, compression=None))
        with await listening.accept_tcp() as peer:
            response = switching_protocols(await peer.read_head())
            await peer.write(response + peer.octets(1, b"early") + peer.close_octets(4000, "and gone"))
            ws = await within(task)
            assert await within(ws.recv()) == "early"
            assert (await peer.read_to_the_end()).close == Close(4000, "and gone")
            assert (await within(ws.closed)).received == Close(4000, "and gone")


async def test_a_drop_received_with_the_101_is_an_ending_of_the_connection():
    with RawServer() as listening:
        async with nothing_left_behind():
            task = asyncio.ensure_future(opened(listening.uri, PLAIN, compression=None))
            with await listening.accept_tcp() as peer:
                await peer.write(switching_protocols(await peer.read_head()) + peer.octets(1, b"early"))
                peer.fin()
                ws = await within(task)
                assert await within(ws.recv()) == "early"
                assert (await within(ws.closed)).cause is Cause.PEER_VANISHED
