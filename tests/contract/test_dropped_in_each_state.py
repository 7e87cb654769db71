"""TCP ends, by FIN or RST, in every state of a connection."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from itertools import product

import pytest

from endwell import (
    Cause,
    Close,
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeError,
    Initiator,
    Response,
    Server,
    TcpEnd,
    connect,
)
from tests.pair import nothing_left_behind, pair, within
from tests.raw import RawPeer, RawServer
from tests.wire.peer import BINARY, TEXT

#: The octets to send of the ClientHello and the ServerHello: a part of each.
SOME = 40


@pytest.fixture(params=["FIN", "RST"])
def drop(request):
    """How the peer ends TCP."""
    return request.param


def end_tcp(peer, drop):
    if drop == "FIN":
        peer.fin()
    else:
        peer.reset()


def expected_end(drop, transport):
    """Cause and TCP end, if the drop is the first event."""
    if drop == "FIN":
        return Cause.PEER_VANISHED, transport.fin
    return Cause.CONNECTION_RESET, TcpEnd.RST


# -- OPENING, as a server ---------------------------------------------------------


@asynccontextmanager
async def server_of(handler, transport, hook=None, **options):
    """A server that keeps serving, and has no connections left at the end of the block."""
    server = Server(compression=None, ping_interval=None, **options)
    server.websocket("/")(handler)
    if hook is not None:
        server.process_request(hook)
    async with server.serving(ssl=transport.server, grace=0):
        async with nothing_left_behind():
            yield server
        with await RawPeer.connect(server.port, transport.client) as peer:
            await peer.frame(TEXT, b"still there?")
            assert (await peer.read_frame()).payload == b"still there?"


async def echo(ws):
    async for message in ws:
        await ws.send(message)


STAGES = pytest.mark.parametrize(
    ("transport", "stage"),
    [
        *product(["ws", "wss"], ["before the head", "within the head"]),
        *product(["wss"], ["before TLS", "within TLS"]),
    ],
    indirect=["transport"],
)


@STAGES
async def test_a_client_that_drops_within_its_request_head_leaves_nothing(
    stage, drop, transport, bytewise, caplog
):
    async with server_of(echo, transport) as server:
        with await RawPeer.connect_tcp(server.port, transport.client, bytewise=bytewise) as peer:
            if stage == "within TLS":
                await peer.send_tcp(peer.tls_flight()[:SOME])
            elif stage.endswith("head"):
                await peer.tls_handshake()
                if stage == "within the head":
                    await peer.write(peer.request()[:SOME])
            await asyncio.sleep(0.01)
            end_tcp(peer, drop)
            await asyncio.sleep(0.01)
    assert not caplog.records


@pytest.mark.parametrize("answer", ["upgrade", "refusal"])
async def test_a_client_that_drops_during_the_hook_ends_when_the_hook_returns(
    answer, drop, transport, caplog
):
    endings, entered, decide = [], asyncio.Event(), asyncio.Event()

    async def hook(request):
        if entered.is_set():
            return None  # the client that is served afterwards
        entered.set()
        await decide.wait()
        return Response.text("no", 403) if answer == "refusal" else None

    async with server_of(echo, transport, hook) as server:
        server.on_close(lambda ws, ending: endings.append(ending))
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(peer.request())
            await within(entered.wait())
            end_tcp(peer, drop)
            await asyncio.sleep(0.01)
            decide.set()
            while server._dispatcher.tasks:
                await asyncio.sleep(0.001)
            del server._observers.close_callbacks[:]
    assert [(ending.cause, ending.tcp) for ending in endings] == (
        [expected_end(drop, transport)] if answer == "upgrade" else []
    )
    assert not caplog.records


async def test_refusing_the_junk_of_a_client_that_is_gone_does_no_harm(drop, transport, caplog):
    async with server_of(echo, transport) as server:
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000)
            end_tcp(peer, drop)
            await asyncio.sleep(0.02)
    assert not caplog.records


# -- OPENING, as a client ---------------------------------------------------------


@STAGES
async def test_a_server_that_drops_within_its_response_head_fails_the_handshake(
    stage, drop, transport, bytewise
):
    with RawServer(transport.server, bytewise=bytewise) as listening:
        async with nothing_left_behind():
            connecting = asyncio.ensure_future(opened(listening.uri, transport.client))
            with await listening.accept_tcp() as peer:
                if stage == "before TLS":
                    await peer.recv_tcp()
                elif stage == "within TLS":
                    await peer.send_tcp(peer.tls_flight(await peer.recv_tcp())[:SOME])
                else:
                    await peer.tls_handshake()
                    await peer.read_head()
                    if stage == "within the head":
                        await peer.write(b"HTTP/1.1 101 Switching Proto")
                await asyncio.sleep(0.01)
                end_tcp(peer, drop)
                with pytest.raises(HandshakeError) as raised:
                    await within(connecting)
    ending = raised.value.ending
    assert (ending.cause, ending.tcp) == expected_end(drop, transport)
    assert (ending.initiator, ending.clean, ending.code) == (Initiator.NETWORK, False, 1006)


async def opened(uri, context, **options):
    return await connect(uri, ssl=context, **options)


# -- OPEN -------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["idle", "within a frame's header", "within a frame", "within a message"])
async def test_a_drop_without_a_close_is_reported_as_fin_or_rst(stage, drop, role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        frame = both.peer.octets(BINARY, bytes(500))
        if stage == "within a frame's header":
            await both.peer.write(frame[:3])
        elif stage == "within a frame":
            await both.peer.write(frame[:250])
        elif stage == "within a message":
            await both.peer.write(both.peer.octets(TEXT, b"to be continued", fin=False))
        receiving = asyncio.ensure_future(both.ws.recv())
        await asyncio.sleep(0.01)
        end_tcp(both.peer, drop)
        ending = await both.ending()
        with pytest.raises(ConnectionClosedError):
            await within(receiving)
    assert (ending.cause, ending.tcp) == expected_end(drop, transport)
    assert (ending.initiator, ending.clean, ending.code) == (Initiator.NETWORK, False, 1006)
    assert (ending.sent, ending.received, ending.messages_in) == (None, None, 0)


async def test_a_waiting_handler_learns_of_a_drop(drop, role, transport):
    async def handler(ws):
        with pytest.raises(ConnectionClosedError):
            async with ws.alive():
                await asyncio.sleep(60)

    async with pair(role, transport, handler=handler) as both:
        end_tcp(both.peer, drop)
        assert (await both.ending()).cause is expected_end(drop, transport)[0]


async def test_messages_before_a_drop_are_delivered_before_the_ending(drop, role, transport):
    async with pair(role, transport) as both:
        both.peer.send_at_once(both.peer.octets(TEXT, b"one"))
        both.peer.send_at_once(both.peer.octets(TEXT, b"two"))
        end_tcp(both.peer, drop)
        ending = await both.ending()
        assert [message async for message in both.ws] == ["one", "two"]
    assert (ending.cause, ending.tcp) == expected_end(drop, transport)


# -- CLOSING ----------------------------------------------------------------------


async def test_a_drop_after_our_close_is_an_unanswered_close(drop, role, transport):
    async with pair(role, transport) as both:
        closing = asyncio.ensure_future(both.ws.close(4000))
        assert await both.peer.read_close() == Close(4000)
        end_tcp(both.peer, drop)
        ending = await within(closing)
    assert (ending.cause, ending.initiator) == (Cause.APP_CLOSED, Initiator.LOCAL)
    assert (ending.sent, ending.received, ending.clean) == (Close(4000), None, False)
    assert ending.tcp is expected_end(drop, transport)[1]


async def test_a_drop_within_the_answer_is_an_unanswered_close(drop, role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        closing = asyncio.ensure_future(both.ws.close(4000))
        assert await both.peer.read_close() == Close(4000)
        await both.peer.write(both.peer.close_octets(4000)[:-1])
        await asyncio.sleep(0.01)
        end_tcp(both.peer, drop)
        ending = await within(closing)
    assert (ending.sent, ending.received, ending.clean) == (Close(4000), None, False)
    assert ending.tcp is expected_end(drop, transport)[1]


# -- LINGERING --------------------------------------------------------------------


@pytest.mark.parametrize("first", ["we", "they"])
async def test_a_drop_after_both_closes_is_clean(first, drop, role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        if first == "we":
            closing = asyncio.ensure_future(both.ws.close(4000))
            assert await both.peer.read_close() == Close(4000)
            await both.peer.close(4000)
            await asyncio.sleep(0.01)
        else:
            await both.peer.close(4000)
            assert await both.peer.read_close() == Close(4000)
        end_tcp(both.peer, drop)
        ending = await both.ending()
        if first == "we":
            assert await within(closing) is ending
    assert (ending.clean, ending.received, ending.sent) == (True, Close(4000), Close(4000))
    assert ending.cause is (Cause.APP_CLOSED if first == "we" else Cause.PEER_CLOSED)
    assert ending.tcp is expected_end(drop, transport)[1]


async def test_a_drop_after_the_answer_to_an_error_reports_the_error(drop, role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        await both.peer.frame(TEXT, b"\xff")
        assert (await both.peer.read_close()).code == 1007
        end_tcp(both.peer, drop)
        ending = await both.ending()
        with pytest.raises(ConnectionClosedError):
            await both.ws.recv()
    assert (ending.cause, ending.clean) == (Cause.INVALID_DATA, False)
    assert ending.tcp is expected_end(drop, transport)[1]


@pytest.mark.parametrize("state", ["open", "closing", "lingering"])
async def test_every_call_after_the_end_raises_with_the_ending(state, drop, role, transport, caplog):
    caplog.set_level(logging.WARNING)
    async with pair(role, transport) as both:
        if state == "closing":
            closing = asyncio.ensure_future(both.ws.close(4000))
            assert await both.peer.read_close() == Close(4000)
        elif state == "lingering":
            await both.peer.close()
            assert await both.peer.read_close() == Close(1000)
        end_tcp(both.peer, drop)
        ending = await both.ending()
        if state == "closing":
            await within(closing)
        error = ConnectionClosedOK if state == "lingering" else ConnectionClosedError
        for more in (both.ws.send("x"), both.ws.ping(), both.ws.recv()):
            with pytest.raises(error) as raised:
                await within(more)
            assert raised.value.ending is ending
        assert await both.ws.close() is ending
    assert not caplog.records
