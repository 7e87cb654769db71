"""The likely cause of real endings: over sockets, in the ways of the truth table."""

import asyncio
import socket

import pytest

from endwell import Server
from endwell.diagnosis import diagnose
from tests.pair import LASTING, until
from tests.raw import RawPeer
from tests.wire.peer import TEXT

from .truth import ENDINGS, MAX_SIZE, OURS

FIRST = {
    "Close 1000": "peer_sent_normal_closure",
    "Close 1001": "page_left",
    "Close 1012": "server_stopping",
    "Close 4001": "application_code",
    "Close without a code": "page_closed_without_code",
    "FIN": "no_closing_handshake",
    "RST": "peer_killed",
    "bad opcode": "peer_broke_the_protocol",
    "bad UTF-8": "invalid_data",
    "message too big": "message_too_big",
    "silent peer": "peer_suspended",
    "network lost": "network_cut",
    "handler returns": "handler_returned",
    "handler raises": "handler_error",
    "stop": "server_drained",
}


def test_every_ending_of_the_table_has_an_expected_cause():
    assert set(FIRST) == {*ENDINGS, *OURS}


async def reads(ws):
    async for _ in ws:
        pass


async def sends(ws):
    sock = ws._stream.sock
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    while True:
        await ws.send("again")
        await asyncio.sleep(0.01)


async def returns(ws):
    pass


async def raises(ws):
    raise RuntimeError("for the test")


async def ending_of(act, handle, **options):
    """The Ending at a server, after a peer that has sent one message did ``act``."""
    server = Server(max_size=MAX_SIZE, **{**LASTING, "ping_interval": None, **options})
    endings = []
    server.on_close(lambda ws, ending: endings.append(ending))

    @server.websocket("/")
    async def handler(ws):
        await ws.send(await ws.recv())
        await handle(ws)

    async with server.serving(grace=5):
        with await RawPeer.connect(server.port) as peer:
            await peer.frame(TEXT, b"hello")
            await peer.read_frame()
            await act(server, peer)
            await until(lambda: endings)
    return endings[0]


@pytest.mark.parametrize("name", ENDINGS)
async def test_the_first_cause_of_an_ending_by_the_peer_is_the_true_one(name):
    end = ENDINGS[name]

    async def act(server, peer):
        await end.act(peer)
        if not end.lost:
            peer.sock.close()

    ending = await ending_of(act, sends if end.lost else reads, **end.options)
    assert ending.cause is end.expected.cause
    assert diagnose(ending)[0].name == FIRST[name]


async def answers(server, peer):
    await peer.read_to_the_end(answer=True)
    peer.sock.close()


async def stops(server, peer):
    async with asyncio.TaskGroup() as group:
        group.create_task(server.drain())
        await answers(server, peer)


@pytest.mark.parametrize(
    ("name", "act", "handle"),
    [("handler returns", answers, returns), ("handler raises", answers, raises), ("stop", stops, reads)],
)
async def test_the_first_cause_of_an_ending_by_the_server_is_the_true_one(name, act, handle):
    ending = await ending_of(act, handle)
    assert ending.cause is OURS[name].expected.cause
    assert diagnose(ending)[0].name == FIRST[name]
