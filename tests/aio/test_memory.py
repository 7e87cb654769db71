"""Connections in memory on a virtual clock: hours pass in milliseconds, and each duration is exact."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time

import pytest

import endwell
from endwell import Cause, HandshakeError, TcpEnd, testing
from endwell.aio.memory import CAPACITY, MemoryTransport
from endwell.aio.syscalls import monotonic
from tests.pair import loop_turns, until

pytestmark = pytest.mark.virtual_clock


def echo_server(**options):
    server = endwell.Server(**options)

    @server.websocket("/")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    return server


def url(server):
    return f"ws://localhost:{server.port}/"


# --- testing.run() ------------------------------------------------------------------


def test_run_connects_a_server_and_a_client_and_an_hour_passes_at_once():
    async def talk():
        async with (server := echo_server()).serving(), endwell.connect(url(server)) as ws:
            for message in ("a", bytes(900_000)):
                await ws.send(message)
                assert await ws.recv() == message
            await asyncio.sleep(3600)
            assert ws.is_open
        return ws.ending

    began = time.monotonic()
    ending = testing.run(talk())
    assert (ending.clean, ending.tcp) == (True, TcpEnd.FIN)
    assert ending.duration == pytest.approx(3600, abs=0.1)
    assert monotonic() - began < 1800  # the clock is real again


def test_run_ends_after_its_timeout_with_a_virtual_day_by_default():
    async def wait():
        nonlocal began
        began = asyncio.get_running_loop().time()
        try:
            await asyncio.Event().wait()
        finally:
            lasted.append(asyncio.get_running_loop().time() - began)

    began, lasted = 0.0, []
    for how in ({}, {"timeout": 5}):
        with pytest.raises(TimeoutError):
            testing.run(wait(), **how)
    assert lasted == pytest.approx([86400, 5], abs=0.1)


async def test_a_second_thread_cannot_have_a_virtual_clock_at_the_same_time():
    second = testing.VirtualLoop()
    with contextlib.closing(second), pytest.raises(RuntimeError, match="another thread has a virtual clock"):
        await asyncio.to_thread(second.run_forever)


async def test_another_thread_reads_the_real_clock():
    before = time.monotonic()
    assert before <= await asyncio.to_thread(monotonic) <= time.monotonic()
    assert monotonic() == asyncio.get_running_loop().time()


async def test_time_does_not_pass_while_a_thread_of_the_executor_runs():
    began = asyncio.get_running_loop().time()
    late = asyncio.get_running_loop().call_later(1, pytest.fail, "the clock has not waited")
    await asyncio.to_thread(time.sleep, 0.05)
    late.cancel()
    assert asyncio.get_running_loop().time() - began < 0.1


async def test_a_plain_hook_holds_the_clock_and_a_plain_handler_is_an_error(caplog):
    server = endwell.Server(open_timeout=0.01)

    @server.process_request
    def hook(request):
        time.sleep(0.05)

    @server.websocket("/")
    def plain(ws):
        raise AssertionError("it has run")

    async with server.serving(), endwell.connect(url(server), open_timeout=10) as ws:
        ending = await ws.closed
    assert ending.received.code == 1011
    assert "a plain WebSocket handler cannot run on a virtual clock" in caplog.text
    assert "still running" not in caplog.text


# --- testing.cut() ------------------------------------------------------------------


async def test_a_lost_network_is_noticed_after_the_times_of_keepalive():
    server = echo_server(ping_interval=20, ping_timeout=30)
    closed = asyncio.get_running_loop().create_future()
    server.on_close(lambda _, ending: closed.set_result(ending))
    async with server.serving():
        ws = await endwell.connect(url(server), ping_interval=None)
        testing.cut(ws)
        await ws.send("lost")
        ending = await closed
        assert ws.is_open
        ws.abort()
    assert ending.cause is Cause.KEEPALIVE_TIMEOUT
    assert ending.messages_in == 0
    assert ending.duration == pytest.approx(50, abs=1.1)
    with pytest.raises(ValueError, match="has ended, or is not in memory"):
        testing.cut(ws)


# --- the network --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "uri"),
    [
        ("127.0.0.1", "ws://localhost:80/"),
        ("localhost", "ws://[::1]:80/"),
        ("chat.example", "ws://Chat.Example:80/"),
        ("chat.example", "wss://chat.example:80/"),
        (None, "ws://anything.example:80/"),
        (["10.0.0.1", "10.0.0.2"], "ws://10.0.0.2:80/"),
    ],
)
async def test_a_server_is_reached_by_its_host_without_a_lookup(host, uri):
    async with echo_server().serving(host, 80), endwell.connect(uri) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
        assert ws.remote_address[1] == 80


async def test_another_host_or_port_or_a_stopped_server_refuses():
    async with (server := echo_server()).serving("chat.example", 80):
        for uri in ("ws://chat.example:81/", "ws://localhost:80/"):
            with pytest.raises(HandshakeError, match="no server listens on") as caught:
                await endwell.connect(uri)
            assert caught.value.ending.cause is Cause.NETWORK_ERROR
            assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        await server.drain(listen=False)
        with pytest.raises(HandshakeError, match="no server listens on"):
            await endwell.connect("ws://chat.example:80/")


async def test_an_address_is_in_use_until_its_server_stops():
    async with echo_server().serving(port=80):
        with pytest.raises(OSError, match="in use") as caught:
            async with echo_server().serving(["10.0.0.1", "localhost"], 80):
                pass
        assert caught.value.errno == errno.EADDRINUSE
        async with echo_server().serving("10.0.0.1", 80):
            pass
        async with echo_server().serving() as second, echo_server().serving() as third:
            assert len({80, second.port, third.port}) == 3
    async with echo_server().serving(port=80):
        pass


async def test_a_unix_path_needs_no_file(tmp_path):
    path = tmp_path / "socket"
    async with echo_server().serving(unix_path=path):
        async with endwell.connect("ws://localhost/", unix_path=path) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        assert not path.exists()


async def test_the_limits_of_a_server_apply():
    async with (server := echo_server(max_connections_per_address=1)).serving(), endwell.connect(url(server)):
        with pytest.raises(endwell.HandshakeRejected) as caught:
            await endwell.connect(url(server))
        assert caught.value.response.status == 503


# --- one connection, as TCP below a transport would be -------------------------------


class Recorder(asyncio.Protocol):
    """Notes what its transport tells."""

    def __init__(self, transport):
        self.transport = transport
        self.told = []
        transport.set_protocol(self)

    def data_received(self, data):
        self.told.append(data)

    def eof_received(self):
        self.told.append("FIN")
        return True

    def connection_lost(self, exc):
        self.told.append("end" if exc is None else exc.errno)

    def pause_writing(self):
        self.told.append("pause")

    def resume_writing(self):
        self.told.append("resume")


@pytest.fixture
def ends():
    """Makes both ends within the test's loop."""
    return lambda: [
        Recorder(end) for end in MemoryTransport.pair(asyncio.get_running_loop(), "client", "server")
    ]


async def test_a_half_closed_end_receives_and_a_closed_one_ends(ends):
    ours, theirs = ends()
    ours.transport.write(b"question")
    ours.transport.write_eof()
    await loop_turns()
    theirs.transport.write(b"answer")
    theirs.transport.close()
    theirs.transport.write(b"too late")
    await loop_turns()
    assert theirs.told == [b"question", "FIN", "end"]
    assert ours.told == [b"answer", "FIN"]
    ours.transport.close()
    await loop_turns()
    assert ours.told == [b"answer", "FIN", "end"]


async def test_closing_with_unread_data_resets_behind_what_was_sent(ends):
    ours, theirs = ends()
    theirs.transport.pause_reading()
    ours.transport.write(b"unread")
    theirs.transport.write(b"before the reset")
    await loop_turns()
    theirs.transport.close()
    await loop_turns()
    assert theirs.told == ["end"]
    assert ours.told == [b"before the reset", errno.ECONNRESET]


async def test_data_for_a_closed_end_is_answered_with_a_reset(ends):
    ours, theirs = ends()
    theirs.transport.close()
    await loop_turns()
    assert ours.told == ["FIN"]
    ours.transport.write(b"to nobody")
    await loop_turns()
    ours.transport.write(b"again")
    await loop_turns()
    assert ours.told == ["FIN", errno.ECONNRESET]


async def test_a_reset_is_found_by_a_write_while_reading_is_paused(ends):
    ours, theirs = ends()
    ours.transport.pause_reading()
    theirs.transport.reset()
    await loop_turns()
    assert ours.told == []
    ours.transport.write(b"x")
    assert ours.transport.is_closing()
    await loop_turns()
    assert ours.told == [errno.ECONNRESET]


async def test_a_peer_that_does_not_read_pauses_the_writer(ends):
    ours, theirs = ends()
    theirs.transport.pause_reading()
    ours.transport.write(bytes(CAPACITY))
    assert ours.told == []
    ours.transport.write(b"one more")
    assert ours.told == ["pause"]
    assert ours.transport.get_write_buffer_size() == 8
    await loop_turns()
    theirs.transport.resume_reading()
    await loop_turns()
    assert ours.told == ["pause", "resume"]
    assert b"".join(theirs.told) == bytes(CAPACITY) + b"one more"


async def test_abort_discards_what_the_connection_does_not_hold(ends):
    ours, theirs = ends()
    theirs.transport.pause_reading()
    ours.transport.write(bytes(CAPACITY + 8))
    ours.transport.abort()
    await loop_turns()
    theirs.transport.resume_reading()
    await until(lambda: "FIN" in theirs.told)
    assert theirs.told == [bytes(CAPACITY), "FIN"]


async def test_nothing_arrives_after_the_network_was_lost(ends):
    ours, theirs = ends()
    ours.transport.cut()
    ours.transport.write(b"lost")
    theirs.transport.write_eof()
    ours.transport.close()
    await loop_turns()
    assert (ours.told, theirs.told) == (["end"], [])
