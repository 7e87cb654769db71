"""What the connections of a loop share: their timers, and the one descriptor that the loop watches."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import time
from contextlib import ExitStack

import pytest

from endwell import Cause, HandshakeError, Server, connect
from endwell.aio.reactor import reactor_of
from endwell.ending import TcpEnd
from endwell.wire.frames import TEXT
from tests.pair import idle, nothing_left_behind, pair, until, within
from tests.raw import BOUND


class Listed:
    """Replaces a stream, and lists its calls."""

    def __init__(self, calls, name, sock=None):
        self.calls = calls
        self.name = name
        self.sock = sock

    def tick(self):
        self.calls.append((self.name, time.monotonic()))

    def readable(self):
        self.calls.append((self.name, self.sock.recv(100)))
        if self.name == "fails":
            raise LookupError("it fails")


async def test_alarms_fire_in_order_neither_early_nor_late():
    loop = asyncio.get_running_loop()
    reactor = reactor_of(loop)
    calls, late = [], []
    began = time.monotonic()
    after = {"last": 0.09, "first": 0.03, "first too": 0.03, "past": -5.0}
    for name, seconds in after.items():
        reactor.set_alarm(Listed(calls, name), began + seconds)
    # The reference is the loop itself: its own timers fire in order, with the same delay.
    timers = [
        loop.call_later(
            max(seconds, 0.0) + 0.05, loop.call_soon, lambda name=name: late.append((name, [*calls]))
        )
        for name, seconds in after.items()
    ]
    await until(lambda: len(calls) == len(after))
    for timer in timers:
        timer.cancel()
    assert calls[0][0] == "past"
    assert {name for name, _ in calls[1:3]} == {"first", "first too"}
    assert [name for name, _ in calls[3:]] == ["last"]
    for name, rang in calls:
        # uvloop rounds its timers down to milliseconds; a stream checks the clock again.
        assert rang - began > after[name] - 0.002
    for name, before in late:
        assert name in dict(before)


async def test_a_cancelled_alarm_does_not_fire_and_leaves_no_timer():
    async with nothing_left_behind():
        reactor = reactor_of(asyncio.get_running_loop())
        calls = []
        soon = time.monotonic() + 0.02
        kept, unset, alone = (Listed(calls, name) for name in ("kept", "unset", "alone"))
        reactor.set_alarm(kept, soon)
        reactor.set_alarm(unset, soon)
        reactor.set_alarm(alone, soon + 60)
        reactor.unset_alarm(unset, soon)
        reactor.unset_alarm(alone, soon + 60)
        reactor.unset_alarm(alone, soon + 60)
        await until(lambda: calls)
        assert [name for name, _ in calls] == ["kept"]


async def test_an_exception_of_one_connection_reaches_the_loops_handler_only():
    loop = asyncio.get_running_loop()
    failures = []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    calls = []
    async with nothing_left_behind():
        reactor = reactor_of(loop)
        with ExitStack() as stack:
            for name in ("one", "fails", "another"):
                ours, theirs = map(stack.enter_context, socket.socketpair())
                reactor.enter()
                reactor.add_reader(ours.fileno(), Listed(calls, name, ours))
                stack.callback(reactor.leave)
                stack.callback(reactor.remove_reader, ours.fileno())
                theirs.send(name.encode())
            await until(lambda: len(calls) == 3)
    assert sorted(calls) == [(name, name.encode()) for name in ("another", "fails", "one")]
    assert [type(failure) for failure in failures] == [LookupError]


async def test_a_loop_has_one_reactor_while_it_has_connections():
    loop = asyncio.get_running_loop()
    async with pair("server") as first, pair("client") as second:
        assert first.ws._stream._reactor is second.ws._stream._reactor is reactor_of(loop)


@pytest.mark.parametrize("drop", ["fin", "reset"])
async def test_without_epoll_the_loop_watches_each_socket(monkeypatch, role, drop):
    monkeypatch.setattr("endwell.aio.reactor.HAS_EPOLL", False)
    async with nothing_left_behind(), pair(role) as both:
        loop = asyncio.get_running_loop()
        assert reactor_of(loop).ask_for_errors is not isinstance(loop, asyncio.SelectorEventLoop)
        await both.peer.frame(TEXT, b"a")
        assert await both.ws.recv() == "a"
        if drop == "reset":
            # Together with the data: libuv announces it only once.
            both.peer.send_at_once(both.peer.octets(TEXT, b"b"))
        getattr(both.peer, drop)()
        ending = await both.ending()
        assert ending.tcp is (TcpEnd.FIN if drop == "fin" else TcpEnd.RST)


async def test_messages_are_sent_without_nagles_delay(role):
    async with pair(role) as both:
        assert both.ws._stream.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("victim", [1, 2])
async def test_only_a_connection_whose_socket_cannot_be_watched_ends(victim, monkeypatch):
    class Full:
        """An epoll that has reached the kernel's max_user_watches at its ``victim``th socket."""

        def __init__(self):
            self.real = epoll()

        def register(self, *arguments):
            asked.append(arguments)
            if len(asked) == victim:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.real.register(*arguments)

        def __getattr__(self, name):
            return getattr(self.real, name)

    epoll, asked = select.epoll, []
    monkeypatch.setattr("endwell.aio.reactor.epoll", Full)
    # No timeout ends the connection within BOUND.
    lasting = {"ping_interval": None, "open_timeout": 2 * BOUND}
    server = Server(**lasting)
    server.websocket("/")(idle)
    async with server.serving(grace=0), nothing_left_behind():
        with pytest.raises(HandshakeError) as raised:
            await within(connect(f"ws://127.0.0.1:{server.port}/", **lasting))
        # Which side is the victim depends on the loop; the other side sees TCP end.
        assert raised.value.ending.cause in (
            Cause.NETWORK_ERROR,
            Cause.PEER_VANISHED,
            Cause.CONNECTION_RESET,
        )
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            assert ws.is_open
