"""The truth table through ASGI: what an application is told about an ending, whatever it does.

It runs on uvicorn with endwell's WebSocket class, and on endwell itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import asynccontextmanager

import pytest

from endwell import Cause, Close, TcpEnd
from endwell.aio.tcp import TcpDriver
from endwell.aio.tls import TlsDriver
from endwell.aio.transport import TlsTransportDriver
from endwell.asgi import ClientDisconnected
from endwell.server.drain.run import LOG_DELAY
from endwell.server.drain.timetable import ANSWER_TIME
from tests.contract.endings.truth import ENDINGS, MAX_SIZE, OURS
from tests.contract.endings.witness import PATIENT
from tests.pair import until
from tests.raw import PROMPT, Frame
from tests.wire.peer import TEXT

from .apps import DOING, FRAMEWORKS, Told, application
from .serving import mounted, protocol, serving

#: Each ending, while the application does each thing. A network that is lost is noticed by a write.
CELLS = [
    (ending, doing) for ending in ENDINGS for doing in DOING if not ENDINGS[ending].lost or doing == "sending"
]


@pytest.fixture(params=["uvicorn", "endwell"])
def host(request):
    """The server that runs the application."""
    return request.param


class Scene:
    """An application that is watched, on a server."""

    def __init__(self, host, framework, script, drain=None, **options):
        self.told = Told()
        self.host = host
        self.application = application(framework, script, self.told)
        self.drain = drain
        self.options = {"max_size": MAX_SIZE, **PATIENT, **options}

    @asynccontextmanager
    async def serving(self, transport):
        if self.host == "uvicorn":
            served = serving(self.application, protocol(self.drain, **self.options), transport)
        else:
            served = mounted(self.application, transport, self.drain, **self.options)
        async with served as server:
            with await server.connect() as peer:
                yield server, peer

    def check(self, end, seen, transport):
        """All that the application and the peer were told is the truth."""
        if transport.server is None:
            driver = TcpDriver
        else:  # over TLS, the connection stays in uvicorn's transport
            driver = TlsTransportDriver if self.host == "uvicorn" else TlsDriver
        check(self.told, end, seen, driver)


def check(told, end, seen, driver):
    """All that the application and the peer were told is the truth."""
    (ending,) = told.endings
    assert told.extension["ending"]() is ending
    truth = end.expected.by_driver(driver)
    assert (ending.cause, ending.initiator, ending.clean) == (truth.cause, truth.initiator, truth.clean)
    assert (ending.received, ending.code, ending.tcp) == (truth.received, truth.code, truth.tcp)
    assert (
        None if ending.sent is None else 1005 if ending.sent.code is None else ending.sent.code
    ) == truth.sent
    assert isinstance(ending.exception, end.exception or type(None))
    if told.disconnect is not None:
        assert told.disconnect == (truth.code, ending.reason)
    if seen is not None:
        assert seen.close == ending.sent
        assert seen.closes == (ending.sent is not None)
        assert seen.tcp is TcpEnd.FIN


def faults(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def hurry(served):
    """Have the system give a peer up that acknowledges nothing for 0.3 s."""
    (ws,) = served.websockets
    ws._stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)


@pytest.mark.parametrize("application", FRAMEWORKS)
@pytest.mark.parametrize(("ending", "doing"), CELLS)
async def test_an_application_is_told_the_truth_at_once_whatever_it_does(
    ending, doing, application, host, transport, caplog
):
    end = ENDINGS[ending]
    scene = Scene(host, application, DOING[doing], **end.options)
    told = scene.told
    async with scene.serving(transport) as (served, peer):
        if end.lost:
            hurry(served)
        began = time.monotonic()
        seen = await end.act(peer)
        if not end.lost:
            peer.sock.close()
        await until(told.known.is_set)
        assert time.monotonic() - began < PROMPT + sum(end.options.values())
        if doing == "busy":
            assert not told.left.is_set()
            told.release.set()
        await until(told.left.is_set)
        await until(lambda: not served.is_busy)
        scene.check(end, seen, transport)
    if doing == "sending":
        assert told.disconnect is None
        gone = told.raised if isinstance(told.raised, ClientDisconnected) else told.raised.__context__
        assert isinstance(gone, OSError)
        assert gone.ending is told.endings[0]
    else:
        assert told.disconnect is not None
        assert told.raised is None
    assert not faults(caplog)


async def _returning(told, connection):
    await connection.send("last words")


async def _raising(told, connection):
    await connection.send("last words")
    raise RuntimeError("secret")


@pytest.mark.parametrize("application", FRAMEWORKS)
async def test_an_application_that_returns_closes_with_1000(application, host, transport, caplog):
    scene = Scene(host, application, _returning)
    async with scene.serving(transport) as (_, peer):
        seen = await peer.read_to_the_end(answer=True)
        peer.sock.close()
        await until(scene.told.known.is_set)
        scene.check(OURS["handler returns"], seen, transport)
    assert seen.frames == [Frame(TEXT, b"last words")]
    assert not faults(caplog)


@pytest.mark.parametrize("application", FRAMEWORKS)
async def test_an_application_that_raises_closes_with_1011_tells_no_internals_and_is_logged_once(
    application, host, transport, caplog
):
    scene = Scene(host, application, _raising)
    async with scene.serving(transport) as (_, peer):
        seen = await peer.read_to_the_end(answer=True)
        peer.sock.close()
        await until(scene.told.known.is_set)
        scene.check(OURS["handler raises"], seen, transport)
    assert seen.frames == [Frame(TEXT, b"last words")]
    (record,) = faults(caplog)
    assert record.exc_info[1] is scene.told.raised


@pytest.mark.parametrize("application", FRAMEWORKS)
@pytest.mark.parametrize("doing", ["receiving", "sending"])
async def test_a_stop_closes_with_1001_and_the_application_leaves_by_itself(
    doing, application, host, transport, caplog
):
    scene = Scene(host, application, DOING[doing])
    async with scene.serving(transport) as (served, peer):
        reading = asyncio.create_task(peer.read_to_the_end(answer=True))
        reading.add_done_callback(lambda _: peer.sock.close())
        began = time.monotonic()
        await served.shutdown()
        assert time.monotonic() - began < PROMPT
        seen = await reading
    scene.check(OURS["stop"], seen, transport)
    assert scene.told.extension["draining"].is_set()
    assert seen.close == Close(1001, "server stopping; retry 0-1s")
    assert not faults(caplog)


@pytest.mark.parametrize("application", FRAMEWORKS)
async def test_a_stop_tells_a_busy_application_and_cancels_it_within_the_deadline(
    application, host, transport, caplog
):
    from endwell import Drain

    for _ in range(5):
        caplog.clear()
        scene = Scene(host, application, DOING["busy"], Drain(deadline=0.3))
        async with scene.serving(transport) as (served, peer):
            reading = asyncio.create_task(peer.read_to_the_end(answer=True))
            reading.add_done_callback(lambda _: peer.sock.close())
            began = time.monotonic()
            await served.shutdown()  # uvicorn itself would wait for ever
            took = time.monotonic() - began
            assert took < PROMPT
            seen = await reading
        # The peer, which is in this process, has 2 s for its answer, and after a second the drain names the handlers
        # for which it waits. If the machine has not run the process in that time, the connection was aborted, or
        # there is a line in the log, as it should be.
        if took < min(ANSWER_TIME, LOG_DELAY):
            break
    scene.check(OURS["stop"], seen, transport)
    assert isinstance(scene.told.raised, asyncio.CancelledError)
    assert scene.told.endings[0].cause is Cause.SERVER_DRAINED
    assert not faults(caplog)
