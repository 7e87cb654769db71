"""Every system call of a connection fails once, each time another one; run by test_faults.py.

In the pure build, because a compiled one calls the system without asking Python; both are
made of the same tcp.py.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import sys
from contextlib import suppress

from endwell import Cause, HandshakeError, Server, compiled, connect
from endwell.aio import listen, reactor, tcp
from tests.pair import within

#: Errors that are temporary, and errors that end a connection, with the cause of the ending.
PASSING = [errno.ENOBUFS, errno.ENOMEM]
ENDING = {
    errno.ECONNRESET: Cause.CONNECTION_RESET,
    errno.EPIPE: Cause.CONNECTION_RESET,
    errno.ETIMEDOUT: Cause.NETWORK_ERROR,
    errno.EHOSTUNREACH: Cause.NETWORK_ERROR,
}
CALLS = ("receive", "send", "send_many")


class Failing:
    """A call that fails the ``nth`` time it is made on our socket."""

    def __init__(self, name: str, nth: int, number: int) -> None:
        self.real = getattr(tcp, name)
        self.left = nth
        self.number = number
        self.victim: int | None = None

    def __call__(self, fd: int, *arguments: object) -> object:
        if fd == self.victim:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.number, "as told")
        return self.real(fd, *arguments)


async def session(name: str, nth: int, number: int) -> bool:
    """A conversation of one server and two clients, in which one call fails; False if it was not made."""
    failing = Failing(name, nth, number)
    endings = []
    cleaned = []
    server = Server(compression=None, ping_interval=None, close_timeout=1)

    @server.websocket("/")
    async def echo(ws: object) -> None:
        failing.victim = ws._stream._fd if failing.victim is None else failing.victim
        try:
            async for message in ws:
                # Large enough to be queued without a copy, beside a small one: send_many.
                await ws.send(message)
                await ws.send(message * 10_000)
        finally:
            cleaned.append(ws)

    def ended(ws: object, ending: object) -> None:
        failing.victim = -1  # the number may be given to another socket
        endings.append(ending)

    server.on_close(ended)
    setattr(tcp, name, failing)
    try:
        async with server.serving(grace=1):
            got = []
            with suppress(Exception):
                async with connect(
                    f"ws://127.0.0.1:{server.port}/", ping_interval=None, close_timeout=1
                ) as ws:
                    for message in ("1", "2", "3"):
                        await ws.send(message)
                        got.append(await within(ws.recv()))
                        assert await within(ws.recv()) == message * 10_000
            async with connect(f"ws://127.0.0.1:{server.port}/", compression=None) as other:
                await other.send("x")
                assert await within(other.recv()) == "x"
    finally:
        setattr(tcp, name, failing.real)
    assert len(endings) == len(cleaned) == 2, (endings, cleaned)
    happened = failing.left <= 0
    if number in PASSING or not happened:
        assert got == ["1", "2", "3"], got
        assert endings[0].cause is Cause.PEER_CLOSED, endings[0]
    else:
        assert got == ["1", "2", "3"][: len(got)]
        # A call may fail after the Closes, too.
        assert endings[0].cause in (ENDING[number], Cause.PEER_CLOSED), endings[0]
    return happened


#: Errors of accept(2): a lack of resources in the system, or a connection that is already gone.
ACCEPTING = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EINTR)
#: Errors of epoll_ctl(2) when a socket is added.
WATCHING = (errno.ENOMEM, errno.ENOSPC)


EPOLL = select.epoll


class FailingEpoll:
    """An epoll that cannot add the ``nth`` socket."""

    def __init__(self, nth: int, number: int) -> None:
        self.real = EPOLL()
        self.left = nth
        self.number = number

    def register(self, *arguments: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.number, "as told")
        self.real.register(*arguments)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


async def conversations(server: Server, count: int) -> int:
    """The number of ``count`` clients, one after the other, that are served; the others fail in order."""
    served = 0
    for _ in range(count):
        with suppress(HandshakeError):
            async with connect(f"ws://127.0.0.1:{server.port}/", ping_interval=None) as ws:
                await ws.send("x")
                assert await within(ws.recv()) == "x"
                served += 1
    return served


def echoing() -> Server:
    server = Server(ping_interval=None, close_timeout=1)

    @server.websocket("/")
    async def echo(ws: object) -> None:
        async for message in ws:
            await ws.send(message)

    return server


async def accepting(number: int) -> None:
    """accept(2) fails once; the client waits a moment and is served."""
    real, fails = listen._accepted, [number]

    def accepted(sock: object) -> object:
        if fails:
            raise OSError(fails.pop(), "as told")
        return real(sock)

    listen._accepted = accepted
    try:
        async with echoing().serving(grace=1) as server:
            assert await conversations(server, 2) == 2
    finally:
        listen._accepted = real
    assert not fails


async def watching(number: int) -> int:
    """epoll_ctl(2) fails once, for a different socket of either side each time; the number of sockets."""
    nth = 1
    while await watched(nth, number):
        nth += 1
    return nth - 1


async def watched(nth: int, number: int) -> bool:
    """It fails for the ``nth`` socket, and only that connection fails. False if there were fewer."""
    epolls = []

    def epoll() -> FailingEpoll:
        epolls.append(FailingEpoll(nth, number))
        return epolls[-1]

    descriptors = len(os.listdir("/proc/self/fd"))
    reactor.epoll = epoll
    try:
        async with echoing().serving(grace=1) as server:
            # An epoll lasts as long as there are connections, so one of ours stays open.
            with suppress(HandshakeError):
                async with connect(f"ws://127.0.0.1:{server.port}/", ping_interval=None):
                    assert await conversations(server, 3) >= 2
    finally:
        reactor.epoll = EPOLL
    assert len(os.listdir("/proc/self/fd")) == descriptors
    return any(each.left <= 0 for each in epolls)


async def main() -> None:
    """Every call fails the first time it is made, then the second time, and so on."""
    assert not compiled()
    logging.disable()
    for number in ACCEPTING:
        await accepting(number)
        sys.stdout.write(f"accept {errno.errorcode[number]}\n")
    for number in WATCHING:
        sys.stdout.write(f"epoll_ctl {errno.errorcode[number]} {await watching(number)}\n")
    for name in CALLS:
        for number in (*PASSING, *ENDING):
            nth = 1
            while await session(name, nth, number):
                nth += 1
            assert nth > 1, f"{name} was never called"
            sys.stdout.write(f"{name} {errno.errorcode[number]} {nth - 1}\n")


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
