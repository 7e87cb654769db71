"""Stages and faults: whatever fails, and in any stage, five guarantees hold.

Other connections are not affected; file descriptors and tasks are released; the application gets one
ending, the right one; its cleanup runs once; and no answered message is lost or duplicated. ``attacked``
checks the first two.

The other faults of the matrix are tested elsewhere: signals in tests/server, TLS faults in tests/contract,
EMFILE in test_exhaustion.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import zlib
from contextlib import suppress

import pytest

from endwell import Cause, CloseCode, Server, connect
from tests.cli.process import PATIENCE, ROOT
from tests.hostile.honest import attacked
from tests.pair import nothing_left_behind, within
from tests.raw import BOUND, HOST, PROMPT, RawPeer, close_of
from tests.wire.peer import BINARY, CONTINUATION, PING, TEXT

#: Seconds of a drain: a busy handler has 1/5 of them for its answer, even on a stalled machine.
DEADLINE = 30.0

#: The peers answer no ping. A stall of less than 2.5 s ends no connection before the fault happens.
TIMES = {
    "open_timeout": 2.5,
    "close_timeout": 2.5,
    "ping_interval": 0.2,
    "ping_timeout": 2.5,
    "write_timeout": 2.5,
}
#: For the test that blocks the loop: all of them expire meanwhile, and the detector of stalls does not notice it.
BLOCK = 0.9
SHORT = dict.fromkeys(("close_timeout", "ping_timeout", "write_timeout"), 0.6) | {"ping_interval": 0.1}
ATTEMPTS = 50


class Application:
    """A handler that echoes, and fails when told to."""

    def __init__(self):
        self.fault = asyncio.get_running_loop().create_future()
        self.received = []
        self.began = self.cleaned = 0
        self.task = None

    async def handler(self, ws):
        self.began += 1
        self.task = asyncio.current_task()
        work = asyncio.ensure_future(self.work(ws))
        try:
            await asyncio.wait([work, self.fault], return_when=asyncio.FIRST_COMPLETED)
            if self.fault.done():
                await self.fault  # raises, if told to
                async with ws.alive():
                    await asyncio.Event().wait()
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work
            self.cleaned += 1

    async def work(self, ws):
        async for message in ws:
            if message == "stream":
                while True:
                    await ws.send(bytes(2**18))
            elif message == "close":
                await ws.close(4000)
            self.received.append(message)
            await ws.send(message)


# -- the stages ---------------------------------------------------------------------


async def accept(peer):
    pass


async def tls(peer):
    await peer.send_tcp(peer.tls_flight()[:40])


async def handshake(peer):
    await peer.tls_handshake()
    await peer.write(peer.request()[:40])


async def idle(peer):
    await peer.upgrade()
    for number in range(5):
        await peer.frame(TEXT, str(number).encode())
        while (frame := await peer.read_frame()).opcode == PING:
            pass  # on a slow machine one is due by now
        assert frame.payload == str(number).encode()


async def receiving(peer):
    await idle(peer)
    await peer.write(peer.octets(BINARY, bytes(1000))[:500])


async def fragment(peer):
    await idle(peer)
    await peer.write(peer.octets(TEXT, b"begun", fin=False))


async def blocked(peer):
    await idle(peer)
    await peer.frame(TEXT, b"stream")
    await asyncio.sleep(0.03)


async def closing(peer):
    await idle(peer)
    await peer.frame(TEXT, b"close")
    while (frame := await peer.read_frame()).opcode == PING:
        pass
    assert close_of(frame).code == 4000


BEFORE = [accept, tls, handshake]
OPEN = [idle, receiving, fragment, blocked]

# -- the faults ---------------------------------------------------------------------


async def reset(peer, application):
    peer.reset()


async def fin(peer, application):
    peer.fin()


async def silence(peer, application):
    await peer.vanish()


async def closes_bytewise(peer, application):
    peer.bytewise = True
    await peer.close(1000)
    peer.fin()


async def raises(peer, application):
    application.fault.set_exception(RuntimeError("secret"))


async def cancelled(peer, application):
    application.task.cancel()


async def stuck(peer, application):
    application.fault.set_result(None)
    await asyncio.sleep(0.02)
    await peer.close(1000)


RIGHT = {
    reset: (Cause.CONNECTION_RESET, None),
    fin: (Cause.PEER_VANISHED, None),
    silence: (Cause.KEEPALIVE_TIMEOUT, None),
    closes_bytewise: (Cause.PEER_CLOSED, CloseCode.NORMAL_CLOSURE),
    raises: (Cause.HANDLER_ERROR, CloseCode.INTERNAL_ERROR),
    cancelled: (Cause.CANCELLED, CloseCode.GOING_AWAY),
    stuck: (Cause.PEER_CLOSED, CloseCode.NORMAL_CLOSURE),
}


def times_of(stage, fault):
    """The options of the server."""
    if fault is silence:
        # A peer that is silent while the server is blocked exceeds both times. Either may be first.
        return TIMES | {"write_timeout": 2 * BOUND}
    # While the peer reads nothing, it cannot answer a Close.
    return TIMES | {"close_timeout": 0.3} if stage is blocked else TIMES


@pytest.mark.parametrize("fault", [reset, fin, silence, closes_bytewise], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("stage", BEFORE, ids=lambda stage: stage.__name__)
async def test_a_fault_before_a_connection_opens_is_not_reported(stage, fault, transport, caplog):
    if stage is tls and transport.client is None:
        stage = accept
    async with attacked(transport=transport, **TIMES) as both:
        with await RawPeer.connect_tcp(both.port, transport.client) as peer:
            await stage(peer)
            if fault is closes_bytewise:
                peer.bytewise = True
                with suppress(ConnectionError):  # it may be aborted in the middle
                    await peer.send_tcp(b"\x00" * 50)
            else:
                await fault(peer, None)
            await asyncio.sleep(0.01)
        assert not both.handled
        assert not both.endings
    assert not caplog.records


@pytest.mark.parametrize("fault", RIGHT, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("stage", [*OPEN, closing], ids=lambda stage: stage.__name__)
async def test_a_fault_ends_only_its_connection_with_the_right_ending(stage, fault, transport, caplog):
    application = Application()
    async with attacked(application.handler, transport, **times_of(stage, fault)) as both:
        with await RawPeer.connect_tcp(both.port, transport.client, buffer=65536) as peer:
            await stage(peer)
            # It waits neither for the end of a message nor for the peer to read; so this is the end.
            if fault is closes_bytewise and stage in (receiving, fragment):
                await finish(stage, peer)
            await fault(peer, application)
            reading = asyncio.ensure_future(peer.read_to_the_end(answer=True))
            if stage is blocked or fault in (reset, silence):
                reading.cancel()
            ending = await both.ended()
            reading.cancel()
            with suppress(asyncio.CancelledError, OSError, TimeoutError):
                await reading
        async with asyncio.timeout(BOUND):
            while application.cleaned < application.began:
                await asyncio.sleep(0.001)
    cause, code = RIGHT[fault]
    if stage is closing:
        cause, code = Cause.APP_CLOSED, 4000
    elif fault in (closes_bytewise, stuck) and stage is receiving:
        cause, code = ending.cause, ending.code  # what follows is a part of the message
    assert ending.cause is cause
    if code is not None:
        # If the peer reads nothing, our Close is sent only if the kernel accepts it.
        assert ending.code in ([code, CloseCode.ABNORMAL_CLOSURE] if stage is blocked else [code])
    assert len(both.endings) == 1
    assert application.began == application.cleaned == 1
    assert application.received[:5] == list("01234")
    assert ending.messages_in == 5 + (stage in (blocked, closing)) + (
        stage in (receiving, fragment) and fault is closes_bytewise
    )
    # One line for a handler that fails, unless the ending was decided by then.
    assert len(caplog.records) == (fault is raises)


@pytest.mark.parametrize("stage", [*OPEN, closing], ids=lambda stage: stage.__name__)
async def test_a_blocked_loop_ends_no_connection(stage, transport, caplog):
    # The stage has to be reached before the first timeout, and the machine may stall.
    for _ in range(ATTEMPTS):
        caplog.clear()
        if await block_the_loop(stage, transport, caplog):
            return
    raise AssertionError("the stage was never reached in time")


async def block_the_loop(stage, transport, caplog):
    """Block the loop while a connection is in ``stage``. False if that took longer than a timeout."""
    application = Application()
    async with attacked(application.handler, transport, open_timeout=BOUND, **SHORT) as both:
        with await RawPeer.connect_tcp(both.port, transport.client, buffer=65536) as peer:
            await peer.tls_handshake()
            began = time.monotonic()
            with suppress(AssertionError, AttributeError, OSError):  # it was ended already
                await stage(peer)
            if time.monotonic() - began > 0.5:
                return False
            # Longer than every timeout, and caused by our own process.
            time.sleep(BLOCK)  # noqa: ASYNC251
            if stage in (receiving, fragment):
                await finish(stage, peer)
            await peer.close(4000 if stage is closing else 1000)
            await within(peer.read_to_the_end())
            peer.fin()
            ending = await both.ended()
        async with asyncio.timeout(BOUND):
            while application.cleaned < application.began:
                await asyncio.sleep(0.001)
    assert ending.cause is (Cause.APP_CLOSED if stage is closing else Cause.PEER_CLOSED)
    assert ending.clean
    assert application.began == application.cleaned == 1
    assert ending.messages_in == 5 + (stage is not idle)
    assert not caplog.records
    return True


async def finish(stage, peer):
    """The rest of what the stage has started."""
    if stage is receiving:
        await peer.write(bytes(500 + 8))
    else:
        await peer.frame(CONTINUATION, b"and finished")


# -- while the server drains --------------------------------------------------------


@pytest.mark.parametrize("fault", RIGHT, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("stage", [*OPEN, closing], ids=lambda stage: stage.__name__)
async def test_a_fault_during_a_drain_ends_only_its_connection(stage, fault, caplog):
    application, endings = Application(), []
    server = Server(**times_of(stage, fault))
    server.websocket("/")(application.handler)

    @server.websocket("/honest")
    async def honest(ws):
        async for message in ws:
            await asyncio.sleep(0.05)
            await ws.send(message)

    server.on_close(lambda ws, ending: ws.request.path == "/honest" or endings.append(ending))
    async with server.serving(grace=1), nothing_left_behind():
        uri = f"ws://{HOST}:{server.port}/honest"
        async with connect(uri, ping_interval=None) as ws:
            with await RawPeer.connect_tcp(server.port, buffer=65536) as peer:
                await stage(peer)
                await ws.send("question")
                await asyncio.sleep(0.01)
                draining = asyncio.ensure_future(server.drain(deadline=DEADLINE))
                await asyncio.sleep(0)
                await fault(peer, application)
                assert await within(ws.recv()) == "question"
                reading = asyncio.ensure_future(peer.read_to_the_end(answer=True))
                if fault is reset:
                    reading.cancel()  # its socket is closed
                report = await within(draining)
                reading.cancel()
                with suppress(asyncio.CancelledError, OSError, TimeoutError):
                    await reading
            assert (await within(ws.closed)).received.code == CloseCode.GOING_AWAY
    assert report.duration < DEADLINE + PROMPT
    assert (report.connections, report.stuck) == (2, ())
    (ending,) = endings
    right = [Cause.SERVER_DRAINED, Cause.APP_CLOSED if stage is closing else RIGHT[fault][0]]
    if stage is receiving and fault in (closes_bytewise, stuck):
        right += [
            Cause.PEER_VANISHED,
            Cause.KEEPALIVE_TIMEOUT,
        ]  # what follows is a part of the message, and no pong
    assert ending.cause in right
    assert application.began == application.cleaned == 1
    assert application.received[:5] == list("01234")
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) <= (fault is raises)


# -- system calls, and memory -------------------------------------------------------


def test_temporary_errors_of_any_system_call_end_no_connection():
    arguments = [sys.executable, "-m", "tests.hostile.starving"]
    pure = {**os.environ, "ENDWELL_PURE": "1"}
    run = subprocess.run(arguments, cwd=ROOT, env=pure, capture_output=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, run.stderr.decode()
    assert len(run.stdout.splitlines()) == 6 + 2 + 3 * 6


@pytest.mark.parametrize("nth", [1, 2])
async def test_a_memory_error_ends_its_connection_and_is_logged_once(nth, monkeypatch, caplog):
    real, calls = zlib.decompressobj, []

    class Failing:
        def __init__(self, wbits):
            self.inflater = real(wbits)
            self.victim = not calls
            calls.append(self)

        def decompress(self, data, room):
            if self.victim and data:
                self.count = getattr(self, "count", 0) + 1
                if self.count == nth:
                    raise MemoryError
            return self.inflater.decompress(data, room)

        def __getattr__(self, name):
            return getattr(self.inflater, name)

    application = Application()
    async with attacked(application.handler) as both:
        monkeypatch.setattr(zlib, "decompressobj", Failing)
        with await RawPeer.connect_tcp(both.port) as peer:
            extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
            await peer.write(peer.request()[:-2] + extension)
            await peer.read_head()
            compressor = zlib.compressobj(wbits=-12)
            data = (compressor.compress(b"hello" * 10) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
            await peer.write(peer.octets(TEXT, data, rsv=4) * 3)
            ending = await both.ended()
            assert isinstance(ending.exception, MemoryError)
            await within(both.handled[0].wait_closed())
    assert application.cleaned == 1
    assert application.received == ["hello" * 10] * (nth - 1)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
