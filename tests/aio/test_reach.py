"""Names and addresses: what is resolved, in which threads, and which of several addresses is used."""

from __future__ import annotations

import _socket
import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest

from endwell import Cause, HandshakeError, Server, TcpEnd, connect
from endwell.aio import reach, resolve
from endwell.aio.reach import interleaved
from endwell.sync.background import background
from tests.pair import loop_turns, nothing_left_behind, until, within
from tests.raw import BOUND, HOST, PLAIN, RawServer, wss
from tests.relay import relaying

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def names(monkeypatch):
    """Fake name resolution: a function that returns the addresses, or blocks, or raises."""
    known = {}

    def getaddrinfo(host, port, *how):
        name = host.decode()
        if name in known and how[-1] != socket.AI_NUMERICHOST:
            return [(family, socket.SOCK_STREAM, 0, "", address) for family, address in known[name]()]
        return _socket.getaddrinfo(host, port, *how)

    monkeypatch.setattr(resolve, "getaddrinfo", getaddrinfo)
    return known


@contextmanager
def hung(names, name="hangs.test"):
    """A name whose lookup hangs until the end of the block."""
    over = threading.Event()

    def wait():
        over.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    names[name] = wait
    try:
        yield f"ws://{name}/"
    finally:
        over.set()


@contextmanager
def swallowing(host=HOST):
    """The address of a server whose kernel drops SYN segments: its accept queue is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(V6 if ":" in host else V4))
        listening.bind((host, 0))
        listening.listen(0)
        for _ in range(3):
            sock = stack.enter_context(socket.socket(listening.family))
            sock.setblocking(False)
            sock.connect_ex(listening.getsockname())
        yield listening.getsockname()


def refusing():
    """An address on which no server listens."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return sock.getsockname()


def address_of(listening):
    return HOST, int(listening.uri.rpartition(":")[2].strip("/"))


# --- lookups ----------------------------------------------------------------------


async def test_hanging_lookups_delay_neither_addresses_nor_other_names(names, face):
    with hung(names) as hanging, RawServer() as listening:
        address = address_of(listening)
        names["lives.test"] = lambda: [(V4, address)]
        # Enough to fill each executor that could be in the way: 2 cores + 4, and libuv's 4.
        stuck = [asyncio.ensure_future(face.connect(hanging, open_timeout=BOUND)) for _ in range(16)]
        for uri in (listening.uri, f"ws://lives.test:{address[1]}/"):
            task = asyncio.ensure_future(face.connect(uri))
            with await listening.accept() as peer:
                ws = await within(task)
                ws.abort()
                peer.drop()
                await within(ws.closed)
        assert not any(task.done() for task in stuck)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "127.1"])
async def test_a_numeric_address_is_not_resolved(host, monkeypatch, face):
    def refuse(*_):
        raise AssertionError("a lookup")

    monkeypatch.setattr(resolve._Lookups, "look_up", refuse)
    for loop in (asyncio.get_running_loop(), background().loop):
        monkeypatch.setattr(loop, "getaddrinfo", refuse)
    _, port = refusing()
    with pytest.raises(HandshakeError) as caught:
        await within(face.connect(f"ws://{host}:{port}/"))
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_excess_lookups_wait_and_cancelled_ones_are_skipped(names, monkeypatch):
    monkeypatch.setattr(resolve, "THREADS", 1)
    monkeypatch.setattr(resolve, "_lookups", resolve._Lookups())
    made = []
    names["given-up.test"] = lambda: made.append("given-up") or []
    names["waits.test"] = lambda: made.append("waits") or []
    with hung(names) as hanging:
        hangs, given_up, waits = (
            asyncio.ensure_future(connect(uri))
            for uri in (hanging, "ws://given-up.test/", "ws://waits.test/")
        )
        await until(lambda: len(resolve._lookups._waiting) == 2)
        given_up.cancel()
        await asyncio.wait({given_up})
        assert made == []
    with pytest.raises(HandshakeError, match=r"cannot resolve 'hangs.test': no answer"):
        await within(hangs)
    with pytest.raises(HandshakeError, match="the name has no address"):
        await within(waits)
    assert made == ["waits"]
    await until(lambda: resolve._lookups._threads == 0)


async def test_a_failure_to_start_a_lookup_thread_fails_the_handshake(names, monkeypatch):
    def start(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(HandshakeError, match="can't start new thread"):
        await connect("ws://anything.test/")
    # Threads of the lookups of earlier tests may still end.
    await until(lambda: resolve._lookups._threads == 0)
    assert not resolve._lookups._waiting


async def test_a_too_long_label_does_not_resolve():
    with pytest.raises(HandshakeError, match="cannot resolve"):
        await within(connect(f"ws://{'a' * 64}.test/"))


PROGRAM = """
import sys, threading
if sys.argv.pop(1) == "asyncio":
    sys.modules["uvloop"] = None  # which resolves names in threads of its own, whatever we do
import endwell, endwell.sync

def late():
    threading.main_thread().join()
    for uri in sys.argv[1:]:
        try:
            endwell.sync.connect(uri)
        except endwell.HandshakeError as failure:
            print(type(failure.__cause__).__name__, flush=True)

threading.Thread(target=late).start()
"""


def run(program, *argv):
    return subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, timeout=BOUND, check=False
    )


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 3),
    reason="this Python starts no thread after the main thread has ended (CPython issue 113964)",
)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_thread_can_connect_after_the_main_thread_ended(loop):
    _, port = refusing()
    ended = run(PROGRAM, loop, f"ws://{HOST}:{port}/", f"ws://localhost:{port}/")
    assert (ended.stdout, ended.stderr) == ("ConnectionRefusedError\n" * 2, "")
    assert ended.returncode == 0


HANGING = """
import asyncio, sys, threading, time
import endwell, endwell.sync
from endwell.aio import resolve

def getaddrinfo(host, port, *how):
    if how[-1]:
        raise resolve.gaierror(-2, "a name")
    time.sleep(60)

resolve.getaddrinfo = getaddrinfo

async def main():
    await endwell.connect("ws://hangs.test/")

try:
    if sys.argv[1] == "asyncio":
        asyncio.run(asyncio.wait_for(main(), 0.1))
    else:
        endwell.sync.connect("ws://hangs.test/", open_timeout=0.1)
except (TimeoutError, endwell.HandshakeError) as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("face", ["asyncio", "sync"])
def test_the_exit_of_the_process_waits_for_no_lookup(face):
    """The lookup would last for 60 s."""
    ended = run(HANGING, face)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == ("TimeoutError\n" if face == "asyncio" else "HandshakeError\n")


def test_a_forked_child_can_resolve_names_during_a_parents_lookup():
    with resolve._lookups._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if resolve._lookups._lock.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- several addresses ------------------------------------------------------------


def test_address_families_alternate_starting_with_the_first():
    a, b, c, x, y = (V6, ("a",)), (V6, ("b",)), (V6, ("c",)), (V4, ("x",)), (V4, ("y",))
    assert interleaved([a, b, c, x, y]) == [a, x, b, y, c]
    assert interleaved([x, a, b]) == [x, a, b]
    assert interleaved([x, y, a]) == [x, a, y]
    assert interleaved([]) == []


async def test_an_unresponsive_address_does_not_block_the_next(names, face):
    with swallowing("::1") as dead, swallowing() as dead_too, RawServer() as listening:
        names["both.test"] = lambda: [(V6, dead), (V4, dead_too), (V4, address_of(listening))]
        async with nothing_left_behind():
            task = asyncio.ensure_future(face.connect("ws://both.test/", open_timeout=BOUND))
            with await listening.accept() as peer:
                ws = await within(task)
                assert ws.remote_address == address_of(listening)
                ws.abort()
                await within(ws.closed)
                peer.drop()


async def test_the_next_attempt_starts_after_the_delay_or_a_failure(names, monkeypatch):
    """With a delay longer than the test, only failures start the next attempt."""
    monkeypatch.setattr(reach, "ATTEMPT_DELAY", 60.0)
    with RawServer() as listening:
        names["both.test"] = lambda: [(V4, refusing()), (V4, refusing()), (V4, address_of(listening))]
        task = asyncio.ensure_future(connect("ws://both.test/"))
        with await listening.accept():
            ws = await within(task)
            ws.abort()
    with swallowing() as dead, RawServer() as listening:
        names["both.test"] = lambda: [(V4, dead), (V4, address_of(listening))]
        with pytest.raises(HandshakeError):
            await within(connect("ws://both.test/", open_timeout=0.2))


async def test_the_first_connected_socket_wins_and_others_are_closed(names, monkeypatch):
    monkeypatch.setattr(reach, "ATTEMPT_DELAY", 0.0)
    with RawServer() as one, RawServer() as two:
        names["both.test"] = lambda: [(V4, address_of(one)), (V4, address_of(two))]
        async with nothing_left_behind():
            task = asyncio.ensure_future(connect("ws://both.test/"))
            winner = asyncio.ensure_future(one.accept()), asyncio.ensure_future(two.accept())
            ws = await within(task)
            ws.abort()
            for each in winner:
                each.cancel()
            for peer in await asyncio.gather(*winner, return_exceptions=True):
                if not isinstance(peer, BaseException):
                    peer.drop()


@pytest.mark.parametrize(("when", "method"), [("connecting", "_next"), ("connected", "_judge")])
async def test_a_cancelled_race_leaves_no_socket(names, monkeypatch, when, method):
    step = getattr(reach._Race, method)

    def step_and_cancel(self, *arguments):
        step(self, *arguments)
        task.cancel()

    monkeypatch.setattr(reach._Race, method, step_and_cancel)
    with swallowing() as dead, RawServer() as listening:
        names["both.test"] = lambda: [(V4, dead if when == "connecting" else address_of(listening))]
        async with nothing_left_behind():
            task = asyncio.ensure_future(reach.Reach().tcp("both.test", 80))
            with pytest.raises(asyncio.CancelledError):
                await within(task)


async def test_the_error_names_every_address(names, face):
    one, two = refusing(), refusing()
    names["both.test"] = lambda: [(V4, one), (V4, two), (V6, ("::1", one[1], 0, 0))]
    with pytest.raises(HandshakeError) as caught:
        await within(face.connect("ws://both.test:81/x?token=secret"))
    refused = os.strerror(errno.ECONNREFUSED)
    assert str(caught.value) == (
        f"ws://both.test:81/x?...: cannot connect to {HOST}:{one[1]}: {refused}, "
        f"[::1]:{one[1]}: {refused}, {HOST}:{two[1]}: {refused}"
    )
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_a_timeout_names_every_address_and_the_option(names, face):
    with swallowing() as one, swallowing("::1") as two:
        names["both.test"] = lambda: [(V4, one), (V6, two)]
        with pytest.raises(HandshakeError) as caught:
            await within(face.connect("ws://both.test:81/", open_timeout=2.5))
    assert str(caught.value) == (
        f"ws://both.test:81/: no connection to {HOST}:{one[1]}, [::1]:{two[1]} within 2.5 s (open_timeout)"
    )
    assert (caught.value.ending.cause, caught.value.ending.tcp) == (Cause.HANDSHAKE_FAILED, TcpEnd.NONE)


async def test_open_timeout_covers_the_lookup(names, face):
    with hung(names) as uri:
        began = time.monotonic()
        with pytest.raises(HandshakeError) as caught:
            await within(face.connect(uri, open_timeout=0.2))
        assert time.monotonic() - began < BOUND
    assert str(caught.value) == (
        "ws://hangs.test:80/: the name 'hangs.test' was not resolved within 0.2 s (open_timeout)"
    )


async def test_connect_waits_for_a_unix_socket_with_a_full_queue(tmp_path):
    """connect(2) fails with EAGAIN then, which does not mean that the connection is in progress."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(0)
        queue = []
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            queue.append(sock)
            if sock.connect_ex(path) == errno.EAGAIN:
                break
        task = asyncio.ensure_future(reach.Reach().unix(path))
        await asyncio.sleep(0)
        assert not task.done()
        for _ in queue[1:]:
            listening.accept()[0].close()
        sock = await within(task)
        assert sock.getpeername() == path
        for each in (sock, *queue):
            each.close()


async def test_a_missing_unix_socket_is_named(tmp_path, face):
    with pytest.raises(HandshakeError) as caught:
        await within(face.connect("ws://name/", unix_path=tmp_path / "socket"))
    assert str(caught.value).endswith(f"cannot connect to '{tmp_path}/socket': No such file or directory")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
async def test_a_connect_through_a_proxy_that_is_cancelled_in_any_turn_leaves_nothing(kind):
    tls = wss()
    server = Server()

    @server.websocket("/")
    async def handler(ws):
        await ws.closed

    async with server.serving(ssl=tls.server, grace=0), relaying(kind, tls=tls.server) as relay:
        how = {"ssl": tls.client, "proxy": relay.url(), "proxy_ssl": tls.client if kind == "https" else None}
        opened, count = False, 0
        while not opened:
            descriptors = client_sockets(relay.port)
            task = asyncio.ensure_future(connect(f"wss://{HOST}:{server.port}/", **how))
            await loop_turns(count)
            opened = not task.cancel()
            if opened:
                (await task).abort()
            else:
                with pytest.raises(asyncio.CancelledError):
                    await within(task)
            await until(lambda before=descriptors: client_sockets(relay.port) <= before)
            await until(lambda: not relay.is_busy)
            count += 1
        assert count > 5


def client_sockets(port):
    """The descriptors of this process that are connected to ``port``."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue  # fromfd() would leave its copy of the descriptor open
            with socket.fromfd(int(name), socket.AF_INET, socket.SOCK_STREAM) as sock:
                if sock.getpeername()[1:] == (port,):
                    found.add(name)
    return found


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_connect_that_is_cancelled_in_any_turn_of_the_loop_leaves_nothing(scheme, monkeypatch):
    """Through the lookup, a race of three addresses, TLS and the opening handshake."""
    transport = wss() if scheme == "wss" else PLAIN
    server = Server()

    @server.websocket("/")
    async def handler(ws):
        await ws.closed

    async def look_up(host, port, of_family):
        await asyncio.sleep(0)
        return [(V4, dead), (V4, refusing()), (V4, (HOST, server.port)), (V4, (HOST, server.port))]

    monkeypatch.setattr(reach, "resolve", look_up)
    monkeypatch.setattr(reach, "ATTEMPT_DELAY", 0.0)
    with swallowing() as dead:
        async with server.serving(ssl=transport.server, grace=0):
            opened, count = False, 0
            while not opened:
                async with nothing_left_behind():
                    task = asyncio.ensure_future(connect(f"{scheme}://{HOST}/", ssl=transport.client))
                    await loop_turns(count)
                    opened = not task.cancel()
                    if opened:
                        (await task).abort()
                    else:
                        with pytest.raises(asyncio.CancelledError):
                            await within(task)
                count += 1
            assert count > 5


async def test_a_winner_that_is_reset_before_it_is_used_is_closed(monkeypatch):
    """setsockopt(2) on such a socket fails with EINVAL on macOS."""

    def refuse(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    with RawServer() as listening:
        monkeypatch.setattr(socket.socket, "setsockopt", refuse)
        async with nothing_left_behind():
            with pytest.raises(HandshakeError, match="Invalid argument") as failed:
                await connect(listening.uri)
            del failed


async def test_an_address_that_the_loop_cannot_watch_fails_and_the_next_is_tried(monkeypatch):
    """epoll_ctl(2): "ENOSPC: The limit imposed by /proc/sys/fs/epoll/max_user_watches was encountered"."""
    loop = asyncio.get_running_loop()
    watch, refused = loop.add_writer, []

    class Loop:
        def __getattr__(self, name):
            return getattr(loop, name)

        def add_writer(self, fd, *args):
            if not refused:
                refused.append(fd)
                raise OSError(errno.ENOSPC, "No space left on device")
            watch(fd, *args)

    monkeypatch.setattr(reach, "ATTEMPT_DELAY", 60.0)
    with swallowing() as dead, RawServer() as listening:
        async with nothing_left_behind():
            race = reach._Race([(V4, dead), (V4, address_of(listening))])
            race._loop = Loop()
            sock = await within(race.run())
            assert sock.getpeername() == address_of(listening)
            sock.close()
    assert refused
