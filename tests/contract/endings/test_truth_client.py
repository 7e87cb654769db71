"""What a client's application learns about each ending: both faces, ws, wss and old protocols, each
application.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from endwell import Cause, ConnectionClosed, HandshakeRejected, Initiator, TcpEnd
from endwell.aio.syscalls import monotonic
from tests.old import peer_type
from tests.pair import until
from tests.raw import PROMPT, RawServer

from .old import TRUTH
from .truth import ENDINGS, MAX_SIZE
from .witness import APPLICATIONS, CELLS, PATIENT, Witness, sockets


@pytest.mark.parametrize(("way", "ending", "application"), CELLS, indirect=["way"])
async def test_a_client_learns_the_true_ending_at_once_in_any_state(way, ending, application, face, caplog):
    transport, version = way
    end = TRUTH.get(version, ENDINGS)[ending]
    options = {**PATIENT, "max_size": MAX_SIZE, "version": version, **end.options}
    witness = Witness(face, APPLICATIONS[application])
    before = sockets(), asyncio.all_tasks()
    with RawServer(transport.server, peers=peer_type(version)) as server:
        accepting = asyncio.create_task(server.accept())
        ws = await face.connect(server.uri, ssl=transport.client, **options)
        work = asyncio.create_task(face.run(witness.run, ws))
        with await accepting as peer:
            if end.lost:
                await until(lambda: witness.ws)
                witness.set_short_tcp_user_timeout()
            began = monotonic()
            seen = await end.act(peer)
            if end.lost:
                await until(witness.ended.is_set)
        await until(witness.ended.is_set)
        assert witness.ended_at - began < PROMPT + sum(end.options.values())
        if application == "busy":
            await asyncio.sleep(0.01)
            assert not witness.left.is_set()
            witness.release.set()
        with suppress(ConnectionClosed):
            await asyncio.wait_for(work, PROMPT)
        await witness.check(end, seen, version)
    assert ws.ending is witness.endings[0]
    await until(lambda: (sockets(), asyncio.all_tasks()) == before)
    if application in {"receiving", "sending", "blocked"}:
        assert type(witness.raised) is end.expected.raises
        assert witness.raised.ending is ws.ending
    else:
        assert witness.raised is None
    assert seen is None or seen.tcp is TcpEnd.FIN
    assert not caplog.records


async def test_a_refusal_raises_with_its_response_and_an_ending(transport, face):
    answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy"
    before = sockets(), asyncio.all_tasks()
    with RawServer(transport.server) as server:
        accepting = asyncio.create_task(server.accept(answer))
        with pytest.raises(HandshakeRejected, match="503 Service Unavailable") as caught:
            await face.connect(server.uri, ssl=transport.client)
        (await accepting).sock.close()
    response, ending = caught.value.response, caught.value.ending
    assert (response.status, response.headers["Retry-After"], response.body) == (503, "7", b"busy")
    assert (ending.cause, ending.initiator) == (Cause.HANDSHAKE_REJECTED, Initiator.PEER)
    assert (ending.clean, ending.received, ending.sent, ending.code) == (False, None, None, 1006)
    await until(lambda: (sockets(), asyncio.all_tasks()) == before)
