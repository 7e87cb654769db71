"""What the handler of a server and its peer learn about each ending: both faces, ws, wss, old protocols."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack, asynccontextmanager

import pytest

from endwell import Cause, Close, ConnectionClosed, Initiator, Server, TcpEnd
from endwell.aio.syscalls import monotonic
from tests.face import ASYNCIO
from tests.old import close_sent, peer_type
from tests.pair import until
from tests.raw import BOUND, PROMPT, TRANSPORTS, Frame
from tests.wire.peer import TEXT

from .old import OLD, TRUTH, TRUTH_OF_OURS
from .truth import ENDINGS, KEEPALIVE, MAX_SIZE, OURS
from .witness import APPLICATIONS, CELLS, PATIENT, Witness, sockets


class Scene:
    """A server with one route, whose handler is watched."""

    def __init__(self, face, application, version="13", **options):
        self.version = version
        self.server = Server(
            max_size=MAX_SIZE, legacy=() if version == "13" else [version], **{**PATIENT, **options}
        )
        self.witness = Witness(face, application)
        self._endings = []
        self.server.on_close(lambda ws, ending: self._endings.append((ws, ending)))
        self.server.websocket("/")(face.handler(self.witness.run))

    @asynccontextmanager
    async def serving(self, transport, grace=2 * BOUND):
        """A connected raw peer. Leaving the block stops the server, which may leave nothing behind."""
        before = sockets(), asyncio.all_tasks()
        with ExitStack() as stack:
            async with self.server.serving(ssl=transport.server, grace=grace):
                connecting = peer_type(self.version).connect(self.server.port, transport.client)
                peer = stack.enter_context(await connecting)
                await until(lambda: self.server.connections or self._endings)
                yield peer
        await until(lambda: self._endings)
        ((ws, ending),) = self._endings
        assert ws.request is self.witness.ws.request
        assert ws.ending is self.witness.ws.ending is ending
        await until(lambda: (sockets(), asyncio.all_tasks()) == before)

    async def over(self):
        """Wait until the handler has returned; then the server may hold nothing of the connection."""
        await until(lambda: self.witness.left.is_set() and not self.server._dispatcher.tasks)
        assert not self.server.connections


def faults(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- the peer or the network ends the connection --------------------------------


@pytest.mark.parametrize(("way", "ending", "application"), CELLS, indirect=["way"])
async def test_a_handler_learns_the_true_ending_at_once_in_any_state(way, ending, application, face, caplog):
    transport, version = way
    end = TRUTH.get(version, ENDINGS)[ending]
    scene = Scene(face, APPLICATIONS[application], version, **end.options)
    witness = scene.witness
    async with scene.serving(transport) as peer:
        if end.lost:
            await until(lambda: witness.ws)
            witness.set_short_tcp_user_timeout()
        began = monotonic()
        seen = await end.act(peer)
        if not end.lost:
            peer.sock.close()
        await until(witness.ended.is_set)
        assert witness.ended_at - began < PROMPT + sum(end.options.values())
        assert not scene.server.connections
        if application == "busy":
            await asyncio.sleep(0.01)
            assert not witness.left.is_set()
            witness.release.set()
        await scene.over()
        await witness.check(end, seen, version)
    if application in {"receiving", "sending", "blocked"}:
        assert type(witness.raised) is end.expected.raises
        assert witness.raised.ending is witness.ws.ending
    else:
        assert witness.raised is None
    assert seen is None or seen.tcp is TcpEnd.FIN
    assert not faults(caplog)


@pytest.mark.waits
async def test_a_silent_peer_is_not_closed_before_its_timeout(transport, face):
    scene = Scene(face, APPLICATIONS["reading"], **KEEPALIVE)
    async with scene.serving(transport) as peer:
        await peer.read_to_the_end()
    assert scene.witness.ws.ending.duration >= sum(KEEPALIVE.values())


async def test_a_silent_peer_that_reads_nothing_is_detected_without_sending_a_close(transport, face):
    scene = Scene(face, APPLICATIONS["blocked"], **KEEPALIVE)
    async with scene.serving(transport):
        await until(scene.witness.ended.is_set)  # before write_timeout, which is another cause
        await scene.over()
    ending = scene.witness.ws.ending
    assert (ending.cause, ending.initiator) == (Cause.KEEPALIVE_TIMEOUT, Initiator.LOCAL)
    assert (ending.clean, ending.sent, ending.code, ending.tcp) == (False, None, 1006, TcpEnd.ABORTED)
    assert ending.unsent_bytes > 0


# -- this side ends the connection: what the peer receives -----------------------


async def _returning(witness, ws):
    await ws.send("last words")


async def _raising(witness, ws):
    await ws.send("last words")
    raise RuntimeError("secret")


#: The parameters beside ``transport``, for a test that also holds in the old protocols.
WAYS = pytest.mark.parametrize("way", [*TRANSPORTS, *OLD], indirect=True)


@WAYS
async def test_a_handler_that_returns_closes_with_1000(way, face, caplog):
    transport, version = way
    scene = Scene(face, _returning, version)
    async with scene.serving(transport) as peer:
        seen = await peer.read_to_the_end(answer=True)
        peer.sock.close()
        await scene.over()
        await scene.witness.check(TRUTH_OF_OURS.get(version, OURS)["handler returns"], seen, version)
    assert scene.witness.ws.ending.sent == close_sent(version, 1000)
    assert seen.tcp is TcpEnd.FIN
    assert seen.frames == [Frame(TEXT, b"last words")]
    assert not faults(caplog)


@WAYS
async def test_a_handler_that_raises_closes_with_1011_and_logs_once(way, face, caplog):
    transport, version = way
    scene = Scene(face, _raising, version)
    async with scene.serving(transport) as peer:
        seen = await peer.read_to_the_end(answer=True)
        peer.sock.close()
        await scene.over()
        await scene.witness.check(TRUTH_OF_OURS.get(version, OURS)["handler raises"], seen, version)
    assert scene.witness.ws.ending.sent == close_sent(version, 1011)
    assert seen.tcp is TcpEnd.FIN
    assert seen.frames == [Frame(TEXT, b"last words")]
    (record,) = faults(caplog)
    assert record.levelno == logging.ERROR
    assert record.exc_info[1] is scene.witness.raised


@WAYS
@pytest.mark.parametrize("application", ["reading", "receiving", "sending"])
async def test_stop_closes_with_1001_and_handlers_return_by_themselves(application, way, face, caplog):
    transport, version = way
    scene = Scene(face, APPLICATIONS[application], version)
    witness = scene.witness
    async with scene.serving(transport) as peer:
        reading = asyncio.create_task(peer.read_to_the_end(answer=True))
        reading.add_done_callback(lambda _: peer.sock.close())
        began = monotonic()
    assert monotonic() - began < PROMPT
    seen = await reading
    await witness.check(TRUTH_OF_OURS.get(version, OURS)["stop"], seen, version)
    assert witness.ws.ending.sent == close_sent(version, 1001, "server stopping; retry 0-1s")
    assert seen.tcp is TcpEnd.FIN
    assert isinstance(witness.raised, ConnectionClosed | None)
    assert (witness.raised is None) is (application == "reading")
    assert not faults(caplog)


@pytest.mark.waits
async def test_stop_waits_at_most_grace_for_a_sleeping_handler(transport, face, caplog, monkeypatch):
    # The peer answers the Close within half of the grace, even on a stalled machine. A thread that does not
    # return takes all of the grace.
    cleanup = 8.0
    monkeypatch.setattr("endwell.server.drain.timetable.CLEANUP_TIME", cleanup)
    scene = Scene(face, APPLICATIONS["busy"])
    witness = scene.witness
    async with scene.serving(transport, grace=0.3) as peer:
        reading = asyncio.create_task(peer.read_to_the_end(answer=True))
        reading.add_done_callback(lambda _: peer.sock.close())
        began = monotonic()
    # 0.23: handlers are cancelled at 4/5 of the grace, and uvloop's clock counts whole milliseconds.
    assert 0.23 <= monotonic() - began < cleanup + PROMPT
    seen = await reading
    await witness.check(OURS["stop"], seen)
    assert witness.ended_at_work
    assert seen.close == Close(1001, "server stopping; retry 0-1s")
    assert seen.tcp is TcpEnd.FIN
    if face is ASYNCIO:
        assert isinstance(witness.raised, asyncio.CancelledError)
        assert not faults(caplog)
        return
    # A thread cannot be cancelled: it is left running, and the log says so.
    assert not witness.left.is_set()
    assert {record.levelno for record in faults(caplog)} == {logging.WARNING}
    assert "handlers still running: 1 x " in caplog.text
    witness.release.set()
    await until(witness.left.is_set)


@pytest.mark.waits
async def test_stop_waits_at_most_grace_for_a_peer_that_does_not_answer(transport, face):
    scene = Scene(face, APPLICATIONS["reading"])
    async with scene.serving(transport, grace=0.3) as peer:
        reading = asyncio.create_task(peer.read_to_the_end())
        began = monotonic()
    # 0.23: handlers are cancelled at 4/5 of the grace, and uvloop's clock counts whole milliseconds.
    assert 0.23 <= monotonic() - began < 0.3 + PROMPT
    seen = await reading
    ending = scene.witness.ws.ending
    assert (ending.cause, ending.clean, ending.code) == (Cause.SERVER_DRAINED, False, 1001)
    assert (ending.received, ending.tcp) == (None, TcpEnd.ABORTED)
    assert seen.close == ending.sent == Close(1001, "server stopping; retry 0-1s")
