"""The peer ends TCP without a Close: the application learns of it at once, whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import threading

import pytest

from endwell import Cause, ConnectionClosed, ConnectionClosedError, Initiator, TcpEnd
from endwell.aio.syscalls import monotonic
from tests.face import BLOCKING
from tests.pair import until
from tests.raw import BOUND, PROMPT


@pytest.fixture(params=["FIN", "RST", "killed"])
def drop(request):
    return request.param


def end(peer, drop):
    """End TCP. A process that holds the socket is killed, as by a crash or the OOM killer."""
    if drop == "FIN":
        peer.fin()
    elif drop == "RST":
        peer.reset()
    else:
        with subprocess.Popen(["sleep", "60"], pass_fds=[peer.sock.fileno()]) as holder:
            peer.drop()  # the process still has it
            holder.kill()


async def _waiting(ws, face, stop):
    while not stop.is_set():
        await face.pause(0.005)


async def _reading(ws, face, stop):
    while ws.is_open:
        if await ws.read() is None:
            break


async def _iterating(ws, face, stop):
    async for _ in ws:
        pass


async def _receiving(ws, face, stop):
    with pytest.raises(ConnectionClosedError):
        await ws.recv()


async def _sending(ws, face, stop):
    async def tick():
        while True:
            await ws.send("tick")
            await face.pause(0.005)

    with pytest.raises(ConnectionClosed):
        await tick()


async def _blocked(ws, face, stop):
    async def stream():
        while True:
            await ws.send("x" * 2**20)

    with pytest.raises(ConnectionClosed):
        await stream()


APPLICATIONS = [_waiting, _reading, _iterating, _receiving, _sending, _blocked]


@pytest.mark.current_protocol
@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda function: function.__name__[1:])
async def test_a_drop_is_reported_at_once_and_the_handlers_cleanup_runs(application, drop, open_pair, face):
    begun, stop, told, left = (threading.Event() for _ in range(4))

    async def handler(ws):
        ws.on_close(lambda ending: told.set())
        begun.set()
        await application(ws, face, stop)
        left.set()

    # Every timeout that could cause the end lasts several times longer than PROMPT.
    async with open_pair(handler=handler, buffer=16384) as both:
        await until(begun.is_set)
        await asyncio.sleep(0.02)  # it works or waits
        if application is _blocked:
            await until(lambda: both.core.outbox.size > both.core.options.write_limit)
        began = monotonic()
        end(both.peer, drop)
        await until(told.is_set)
        assert not both.ws.is_open
        assert monotonic() - began < PROMPT
        stop.set()
        await until(left.is_set)
        assert monotonic() - began < PROMPT
        ending = await both.ending()
    assert (ending.initiator, ending.clean, ending.code) == (Initiator.NETWORK, False, 1006)
    assert ending.cause in {Cause.PEER_VANISHED, Cause.CONNECTION_RESET}
    assert (ending.sent, ending.received) == (None, None)
    if application is _blocked:
        assert ending.unsent_bytes > 0


def held_by_a_child(peer):
    """Our socket of the connection to the peer, duplicated as in a child that was forked meanwhile."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                held = socket.socket(fileno=os.dup(int(name)))
                with contextlib.suppress(OSError):  # not connected
                    if held.getpeername() == peer.sock.getsockname():
                        return held
                held.close()
    raise AssertionError("our end was not found")


CUTS = {
    "abort": {},
    "keepalive": {
        "ping_interval": 2.0,
        "ping_timeout": 0.4,
    },  # not before the test has duplicated it, even on a stalled machine
    "close timeout": {"close_timeout": 0.05},
}


@pytest.mark.current_protocol
@pytest.mark.parametrize("cut", CUTS)
async def test_abort_ends_tcp_although_a_forked_child_holds_the_descriptor(open_pair, face, cut):
    async with open_pair(**CUTS[cut]) as both:
        with held_by_a_child(both.peer):
            if cut == "abort":
                await asyncio.to_thread(both.ws.abort) if face is BLOCKING else both.ws.abort()
            elif cut == "close timeout":
                await both.ws.close()
            async with asyncio.timeout(BOUND):
                while await both.peer.more():
                    pass
            assert both.peer.seen.tcp is TcpEnd.FIN
