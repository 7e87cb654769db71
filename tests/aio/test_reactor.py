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
    """Stands where a stream does, and lists what it is told."""

    def __init__(self, told, name, sock=None):
        self.told = told
        self.name = name
        self.sock = sock

    def tick(self):
        self.told.append((self.name, time.monotonic()))

    def readable(self):
        self.told.append((self.name, self.sock.recv(100)))
        if self.name == "fails":
            raise LookupError("it fails")


async def test_alarms_ring_in_order_not_too_early_and_not_late():
    loop = asyncio.get_running_loop()
    reactor = reactor_of(loop)
    told, late = [], []
    began = time.monotonic()
    after = {"last": 0.09, "first": 0.03, "first too": 0.03, "past": -5.0}
    for name, seconds in after.items():
        reactor.set_alarm(Listed(told, name), began + seconds)
    # The loop itself says what late is: its own timers are due in order, however late it is.
    timers = [
        loop.call_later(
            max(seconds, 0.0) + 0.05, loop.call_soon, lambda name=name: late.append((name, [*told]))
        )
        for name, seconds in after.items()
    ]
    await until(lambda: len(told) == len(after))
    for timer in timers:
        timer.cancel()
    assert told[0][0] == "past"
    assert {name for name, _ in told[1:3]} == {"first", "first too"}
    assert [name for name, _ in told[3:]] == ["last"]
    for name, rang in told:
        # uvloop rounds its timers down to milliseconds; a stream looks at the clock again.
        assert rang - began > after[name] - 0.002
    for name, before in late:
        assert name in dict(before)


async def test_an_alarm_that_was_unset_does_not_ring_and_leaves_no_timer():
    async with nothing_left_behind():
        reactor = reactor_of(asyncio.get_running_loop())
        told = []
        soon = time.monotonic() + 0.02
        kept, unset, alone = (Listed(told, name) for name in ("kept", "unset", "alone"))
        reactor.set_alarm(kept, soon)
        reactor.set_alarm(unset, soon)
        reactor.set_alarm(alone, soon + 60)
        reactor.unset_alarm(unset, soon)
        reactor.unset_alarm(alone, soon + 60)
        reactor.unset_alarm(alone, soon + 60)
        await until(lambda: told)
        assert [name for name, _ in told] == ["kept"]


async def test_a_connection_that_fails_is_told_to_the_loop_and_the_others_are_read():
    loop = asyncio.get_running_loop()
    failures = []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    told = []
    async with nothing_left_behind():
        reactor = reactor_of(loop)
        with ExitStack() as stack:
            for name in ("one", "fails", "another"):
                ours, theirs = map(stack.enter_context, socket.socketpair())
                reactor.enter()
                reactor.add_reader(ours.fileno(), Listed(told, name, ours))
                stack.callback(reactor.leave)
                stack.callback(reactor.remove_reader, ours.fileno())
                theirs.send(name.encode())
            await until(lambda: len(told) == 3)
    assert sorted(told) == [(name, name.encode()) for name in ("another", "fails", "one")]
    assert [type(failure) for failure in failures] == [LookupError]


async def test_what_shares_a_loop_is_one_for_it_while_it_has_connections():
    loop = asyncio.get_running_loop()
    async with pair("server") as first, pair("client") as second:
        assert first.ws._stream._reactor is second.ws._stream._reactor is reactor_of(loop)


@pytest.mark.parametrize("drop", ["fin", "reset"])
async def test_without_epoll_the_loop_watches_each_connection(monkeypatch, role, drop):
    monkeypatch.setattr("endwell.aio.reactor.HAS_EPOLL", False)
    async with nothing_left_behind(), pair(role) as both:
        loop = asyncio.get_running_loop()
        assert reactor_of(loop).ask_for_errors is not isinstance(loop, asyncio.SelectorEventLoop)
        await both.peer.frame(TEXT, b"a")
        assert await both.ws.recv() == "a"
        if drop == "reset":
            # With the data: what libuv announces once only.
            both.peer.push(both.peer.octets(TEXT, b"b"))
        getattr(both.peer, drop)()
        ending = await both.ending()
        assert ending.tcp is (TcpEnd.FIN if drop == "fin" else TcpEnd.RST)


async def test_no_message_waits_for_others_to_fill_a_packet(role):
    async with pair(role) as both:
        assert both.ws._stream.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("victim", [1, 2])
async def test_a_connection_whose_socket_cannot_be_watched_ends_at_once_and_alone(victim, monkeypatch):
    class Full:
        """An epoll that has reached the system's max_user_watches at its ``victim``th socket."""

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
    # No timeout is what ends it within BOUND.
    lasting = {"ping_interval": None, "open_timeout": 2 * BOUND}
    server = Server(**lasting)
    server.websocket("/")(idle)
    async with server.serving(grace=0), nothing_left_behind():
        with pytest.raises(HandshakeError) as raised:
            await within(connect(f"ws://127.0.0.1:{server.port}/", **lasting))
        # Which side was the victim is a matter of the loop; the other one sees it go.
        assert raised.value.ending.cause in (
            Cause.NETWORK_ERROR,
            Cause.PEER_VANISHED,
            Cause.CONNECTION_RESET,
        )
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            assert ws.is_open
