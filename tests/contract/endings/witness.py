"""What applications do while a connection ends, and a record of everything they learn about the ending."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import Awaitable, Callable
from itertools import product
from typing import Any

from endwell import Cause, ConnectionClosed, Ending, WebSocket
from endwell.aio.syscalls import monotonic
from endwell.protocol.connection import Connection
from endwell.protocol.deadline import NEVER
from endwell.protocol.record import MAX_RECORD
from endwell.protocol.replay import replay
from tests.face import Face
from tests.old import MISSING_FEATURES, close_received
from tests.pair import LASTING, until
from tests.raw import BOUND, TRANSPORTS, Seen

from .old import OLD, TRUTH
from .truth import ENDINGS, End, Report

__all__ = ["APPLICATIONS", "CELLS", "PATIENT", "Witness", "check_replay", "sockets"]

#: An application has to learn of the ending within PROMPT. Every timeout of the library that could reveal
#: it lasts three times as long, and so does the sleep of the busy handler.
PATIENT: dict[str, Any] = {"recorder": True, **LASTING, "ping_interval": 2 * BOUND, "ping_timeout": 2 * BOUND}


class Witness:
    """Everything that one application learns about one connection, with either face."""

    def __init__(self, face: Face, application: Application) -> None:
        self.face = face
        self.application = application
        #: The connection, as an object for the test.
        self.ws: Any = None
        self.endings: list[Ending] = []
        #: Set when on_close has been called, and the time of the call.
        self.ended = threading.Event()
        self.ended_at = 0.0
        #: Whether the application was still running when on_close was called.
        self.ended_at_work = False
        #: Wakes the busy application.
        self.release = threading.Event()
        #: Set when the cleanup of the application has run, and the exception that led to it.
        self.left = threading.Event()
        self.raised: BaseException | None = None

    async def run(self, ws: Any) -> None:
        """The script: run the application and record."""
        self.ws = self.face.for_test(ws)
        ws.on_close(self._record)
        try:
            await self.application(self, ws)
        except BaseException as exc:
            self.raised = exc
            raise
        finally:
            self.left.set()

    def _record(self, ending: Ending) -> None:
        assert self.ws.ending is ending
        assert not self.ws.is_open
        self.endings.append(ending)
        self.ended_at = monotonic()
        self.ended_at_work = not self.left.is_set()
        self.ended.set()

    def set_short_tcp_user_timeout(self) -> None:
        """Make the kernel give up a peer that acknowledges nothing for 0.3 s."""
        sock = self.face.engine(self.ws)._stream.sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)

    async def check(self, end: End, seen: Seen | None, version: str = "13") -> None:
        """All reports to the application and to the peer are correct and consistent."""
        ws = self.ws
        await until(self.ended.is_set)  # in a thread of its own, if the handler blocks
        (ending,) = self.endings
        raised = await self._ask_everywhere(ending)
        stream = self.face.engine(ws)._stream
        check_replay(ending, self.face.engine(ws)._core)
        assert Report.by(ws, raised) == end.expected.by_driver(type(stream))
        assert ws.close_reason == ("" if ending.received is None else ending.received.reason)
        assert isinstance(ending.exception, end.exception or type(None))
        assert str(raised) == str(ending)
        # The loop of a blocking client may not have finished yet.
        await until(lambda: stream.sock is None and stream._alarm == NEVER)
        if seen is not None:
            said = (
                None if ending.sent is None else close_received(version, ending.sent.code, ending.sent.reason)
            )
            if "close" in MISSING_FEATURES[version] and end.expected.cause is not Cause.PEER_CLOSED:
                said = None
            assert seen.close == said
            assert seen.closes == (said is not None)

    async def _ask_everywhere(self, ending: Ending) -> ConnectionClosed:
        """Each way to ask for the ending gives this very object."""
        ws = self.ws
        assert ws.ending is ending
        async with asyncio.timeout(BOUND):
            assert await ws.closed is ending
            assert await ws.close(4999, "too late") is ending
            assert await ws.read() is None
            assert [message async for message in ws] == []
            raised = await _raised_by(ws.recv())
            more = [ws.send("x"), ws.ping()]
            if isinstance(ws, WebSocket):
                more.append(_alive(ws))
            for action in more:
                also = await _raised_by(action)
                assert type(also) is type(raised)
                assert also.ending is ending
        assert raised.ending is ending
        again: list[Ending] = []
        ws.on_close(again.append)
        assert again == [ending]
        return raised


def check_replay(ending: Ending, core: Connection) -> None:
    """The record of the connection, as JSON, replays to the same ending."""
    assert (ending.record is None) is ending.ok
    record = ending.record or core.record()
    assert record is not None
    written = json.dumps({**ending.as_dict(), "record": dict(record)})
    assert len(json.dumps(dict(record))) <= MAX_RECORD
    replayed = replay(json.loads(written))
    assert replayed.differences() == {}, written
    assert str(replayed.ending) == str(ending)


async def _raised_by(action: Awaitable[object]) -> ConnectionClosed:
    try:
        await action
    except ConnectionClosed as exc:
        return exc
    raise AssertionError("it did not raise")


async def _alive(ws: WebSocket) -> None:
    async with ws.alive():
        raise AssertionError("it is not alive")


# -- the applications ----------------------------------------------------------

Application = Callable[[Witness, Any], Awaitable[None]]


async def _reading(witness: Witness, ws: Any) -> None:
    async for _ in ws:
        pass


async def _receiving(witness: Witness, ws: Any) -> None:
    while True:
        await ws.recv()


async def _busy(witness: Witness, ws: Any) -> None:
    until = monotonic() + 2 * BOUND
    while not witness.release.is_set():
        await witness.face.pause(0.005)
        assert monotonic() < until


async def _sending(witness: Witness, ws: Any) -> None:
    while True:
        await ws.send("tick")
        await witness.face.pause(0.01)


async def _blocked(witness: Witness, ws: Any) -> None:
    while True:
        await ws.send(bytes(2**15))


#: By what they do when the connection ends; "blocked" waits in ``send()`` for room.
APPLICATIONS: dict[str, Application] = {
    "reading": _reading,
    "receiving": _receiving,
    "busy": _busy,
    "sending": _sending,
    "blocked": _blocked,
}

#: Each ending with each application; two applications in the old protocols. A silent peer that reads
#: nothing gets no Close either: that is another ending with a test of its own. The loss of the network is
#: also detected by pings, unless the kernel is faster.
CELLS = [
    *(
        (way, ending, application)
        for way, ending, application in product(TRANSPORTS, ENDINGS, APPLICATIONS)
        if not (ENDINGS[ending].options and application == "blocked")
        and not (ENDINGS[ending].lost and application != "sending")
    ),
    *(
        (version, ending, application)
        for version in OLD
        for ending, application in product(TRUTH[version], ("reading", "busy"))
        if not TRUTH[version][ending].lost
    ),
]


def sockets() -> set[int]:
    """The open sockets of this process, by inode."""
    found = set()
    for name in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # the descriptor of this listing
        if stat.S_ISSOCK(status.st_mode):
            found.add(status.st_ino)
    return found
