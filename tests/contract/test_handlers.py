"""The handler of a server: what its result means for the connection, and that it ends with the connection."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import traceback

import pytest

from endwell import Cause, Close, ConnectionClosed, Server
from tests.pair import until, within
from tests.raw import Frame, RawPeer
from tests.wire.peer import TEXT


def faults(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.needs("codes")
@pytest.mark.parametrize("loop", ["while is_open", "for"])
@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("Close 1000", Cause.PEER_CLOSED),
        ("Close 4001", Cause.PEER_CLOSED),
        ("FIN", Cause.PEER_VANISHED),
        ("RST", Cause.CONNECTION_RESET),
        ("fault", Cause.PROTOCOL_ERROR),
    ],
)
async def test_the_handlers_cleanup_runs_for_every_ending(loop, how, cause, open_server_pair, caplog):
    handled, cleaned = [], []
    handle_message = handled.append

    async def handler(ws):
        if loop == "for":
            async for message in ws:
                handle_message(message)
        else:
            while ws.is_open:
                message = await ws.read()
                if message is None:
                    break
                handle_message(message)
        cleaned.append((ws.request.path, ws.ending))

    async with open_server_pair(handler=handler) as both:
        await both.peer.frame(TEXT, b"one")
        await until(lambda: handled)
        if how == "FIN":
            both.peer.fin()
        elif how == "RST":
            both.peer.reset()
        else:
            if how == "fault":
                await both.peer.frame(0x3)
            else:
                await both.peer.close(int(how.removeprefix("Close ")))
            await both.peer.read_to_the_end()
            both.peer.fin()
        ending = await both.ending()
        await until(lambda: cleaned)
    assert cleaned == [("/", ending)]
    assert ending.cause is cause
    assert handled == ["one"]
    assert not faults(caplog)


async def _returning(ws):
    await ws.send("last words")


async def _raising(ws):
    await ws.send("last words")
    raise RuntimeError("secret")


async def _exiting(ws):
    await ws.send("last words")
    sys.exit("secret")


async def _ended_by_itself(ws):
    await ws.send("last words")
    await ws.close(4000, "enough")


@pytest.mark.needs("close")
@pytest.mark.parametrize(
    ("script", "cause", "close"),
    [
        (_returning, Cause.HANDLER_RETURNED, (1000, "")),
        (_raising, Cause.HANDLER_ERROR, (1011, "")),
        (_exiting, Cause.HANDLER_ERROR, (1011, "")),
        (_ended_by_itself, Cause.APP_CLOSED, (4000, "enough")),
    ],
)
async def test_the_close_code_follows_from_the_result_of_the_handler(
    script, cause, close, open_server_pair, caplog
):
    async with open_server_pair(handler=script) as both:
        seen = await both.peer.read_to_the_end(answer=True)
        both.peer.fin()
        ending = await both.ending()
    assert seen.frames == [Frame(TEXT, b"last words")]
    assert (seen.close, seen.closes) == (both.close_received(*close), 1)
    assert (ending.cause, ending.sent, ending.clean) == (cause, both.close_sent(*close), True)
    logged = faults(caplog)
    failed = script in (_raising, _exiting)
    assert [record.levelno for record in logged] == ([logging.ERROR] if failed else [])
    for record in logged:
        assert "secret" in "".join(traceback.format_exception(record.exc_info[1]))
        assert re.search(r"handler \S+ of '/' for 127\.0\.0\.1:\d+ failed", record.getMessage())


async def test_a_handler_that_propagates_connection_closed_is_no_error(open_server_pair, caplog):
    async def handler(ws):
        while True:
            await ws.recv()

    async with open_server_pair(handler=handler) as both:
        await both.peer.close(4000, "fault")
        await both.peer.read_to_the_end()
        both.peer.fin()
        await both.ending()
    assert not faults(caplog)


@pytest.mark.needs("close")
@pytest.mark.parametrize("other", [None, ValueError("mine")])
async def test_an_exception_group_is_an_error_unless_all_are_connection_closed(
    other, open_server_pair, caplog
):
    async def handler(ws):
        try:
            while True:
                await ws.recv()
        except ConnectionClosed as exc:
            leaves = [exc, *([] if other is None else [other])]
            raise BaseExceptionGroup("outer", [exc, BaseExceptionGroup("inner", leaves)]) from None

    async with open_server_pair(handler=handler) as both:
        await both.peer.close(1000)
        await both.peer.read_to_the_end()
        both.peer.fin()
        ending = await both.ending()
    assert ending.cause is Cause.PEER_CLOSED
    assert len(faults(caplog)) == (other is not None)


@pytest.mark.needs("close")
async def test_connection_closed_of_another_connection_is_a_handler_error(open_server_pair, caplog):
    async with open_server_pair() as other:
        other.peer.fin()
        theirs = await other.ending()

    async def handler(ws):
        raise ConnectionClosed.of(theirs)

    async with open_server_pair(handler=handler) as both:
        seen = await both.peer.read_to_the_end(answer=True)
    assert seen.close == both.close_received(1011)
    assert both.ws.ending.sent == both.close_sent(1011)
    assert len(faults(caplog)) == 1


async def test_a_handler_receives_route_parameters_and_the_request(face, transport):
    async def handler(ws, room, rest):
        await ws.send(f"{room} {rest} {ws.request.params} {ws.request.query} {ws.request.headers['Host']}")

    server = Server()
    server.websocket("/chat/{room}/{rest:path}")(face.handler(handler))
    async with server.serving(ssl=transport.server):
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(peer.request("/chat/a%20b/c/d?x=1"))
            await peer.read_head()
            frame = await peer.read_frame()
            await peer.read_to_the_end(answer=True)
    assert frame.payload.decode() == "a b c/d {'room': 'a b', 'rest': 'c/d'} {'x': '1'} localhost"


async def test_stop_closes_with_1001_and_handlers_return_by_themselves(face, transport, caplog):
    left = []

    async def handler(ws):
        async for _ in ws:
            pass
        left.append(ws.ending)

    server = Server()
    server.websocket("/")(face.handler(handler))
    async with server.serving(ssl=transport.server):
        peers = [await RawPeer.connect(server.port, transport.client) for _ in range(5)]
        readings = [asyncio.ensure_future(peer.read_to_the_end(answer=True)) for peer in peers]
        for peer, reading in zip(peers, readings, strict=True):
            reading.add_done_callback(lambda _, peer=peer: peer.drop())
        await until(lambda: len(server.connections) == 5)
    for reading in readings:
        assert (await within(reading)).close == Close(1001, "server stopping; retry 0-1s")
    assert [ending.cause for ending in left] == [Cause.SERVER_DRAINED] * 5
    assert not faults(caplog)
