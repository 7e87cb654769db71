"""One connection and several threads."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

import endwell
from endwell import Cause, ConcurrencyError, ConnectionClosed, sync
from endwell.ending import Close
from endwell.sync import bridge
from tests.raw import BOUND, PROMPT
from tests.sync.background import Background, served, until


def test_close_from_another_thread_wakes_recv_with_the_same_ending():
    with served() as (_, address), sync.connect(address + "/hold", close_timeout=2 * BOUND) as ws:
        receiving = Background(ws.recv)
        time.sleep(0.05)
        began = time.monotonic()
        ending = ws.close(4000, "enough")
        with pytest.raises(ConnectionClosed) as closed:
            receiving.result()
        assert time.monotonic() - began < PROMPT
        assert closed.value.ending is ending
        assert ending.cause is Cause.APP_CLOSED
        assert ending.code == 4000


def test_all_waiting_threads_get_the_same_ending():
    with served() as (_server, address), sync.connect(address + "/hold") as ws:
        waiting = [Background(ws.recv) for _ in range(3)]
        quiet = [Background(ws.wait_closed), Background(ws.close)]
        ending = quiet[0].result()
        assert quiet[1].result() is ending
        for each in waiting:
            with pytest.raises(ConnectionClosed) as closed:
                each.result()
            assert closed.value.ending is ending


def test_a_timeout_of_a_receive_loses_nothing():
    with served() as (server, address), sync.connect(address + "/hold") as ws:
        until(lambda: server.held)
        for seconds in (0, 0.01):
            with pytest.raises(TimeoutError):
                ws.recv(seconds)
            with pytest.raises(TimeoutError):
                ws.read(timeout=seconds)
        sending = Background(_send_all, server.held[0], 200)
        received = []
        while len(received) < 200:
            try:
                received.append(ws.recv(0.0005))
            except TimeoutError:
                pass
        assert received == [str(number) for number in range(200)]
        sending.result()


def _send_all(ws: endwell.WebSocket, count: int) -> None:
    """Send ``count`` messages on the loop of ``ws``, one per iteration."""

    def send(number: int) -> None:
        if number < count:
            ws.send(str(number))
            loop.call_later(0.0007, send, number + 1)

    loop = ws._stream.loop
    loop.call_soon_threadsafe(send, 0)


def test_a_blocked_send_ends_when_the_peer_goes():
    with served() as (server, address):
        ws = sync.connect(address + "/hold")
        until(lambda: server.held)

        def send() -> None:
            while True:
                ws.send(bytes(100_000))

        senders = [Background(send) for _ in range(5)]
        time.sleep(0.2)
        assert all(each.running for each in senders)
        peer = server.held[0]
        peer._stream.loop.call_soon_threadsafe(peer.abort)
        for each in senders:
            with pytest.raises(ConnectionClosed):
                each.result()
        assert not ws.is_open


def test_waiting_senders_take_turns():
    with served(write_limit=1000) as (_server, address):
        ws = sync.connect(address + "/echo", write_limit=1000, max_queue=10_000)

        def send(name: int) -> None:
            for number in range(100):
                ws.send(f"{name} {number} " + "x" * 900)

        senders = [Background(send, name) for name in range(5)]
        received = Counter()
        for _ in range(500):
            name, number, _ = ws.recv(BOUND).split()
            assert received[name] == int(number)
            received[name] += 1
        for each in senders:
            each.result()
        assert ws.close().messages_out == 500


def test_a_thread_never_waits_for_its_own_event_loop():
    with served() as (_server, address), sync.connect(address + "/hold") as ws:
        found = []

        def call() -> None:
            for function in (ws.recv, ws.close, ws.ping, ws.wait_closed):
                try:
                    function()
                except ConcurrencyError as exc:
                    found.append(str(exc))

        ws._ws._stream.loop.call_soon_threadsafe(call)
        until(lambda: len(found) == 4)
        assert all("event loop" in each for each in found)


def test_on_close_is_called_once_without_a_receiver():
    with served() as (server, address):
        ws = sync.connect(address + "/hold")
        calls = []
        ws.on_close(lambda ending: calls.append((ending, threading.current_thread())))
        until(lambda: server.held)
        peer = server.held[0]
        peer._stream.loop.call_soon_threadsafe(peer.abort)
        until(lambda: calls)
        [(ending, thread)] = calls
        assert not ws.is_open
        assert ending is ws.ending
        assert thread is not threading.main_thread()
        ws.on_close(lambda ending: calls.append((ending, threading.current_thread())))
        assert calls[1] == (ending, threading.main_thread())


def test_a_callback_may_block_and_its_errors_are_logged(caplog, monkeypatch):
    monkeypatch.setattr(bridge, "CALLBACK_TIME", BOUND)  # close() returns when it has returned
    with served() as (_, address):
        other = sync.connect(address + "/echo")
        ws = sync.connect(address + "/echo")
        found = []

        def callback(ending):
            other.send("gone")
            found.append(other.recv(BOUND))
            found.append(ws.close() is ending)
            found.append(ws.read())
            raise RuntimeError("mine")

        ws.on_close(callback)
        ws.close()
        assert found == ["gone", True, None]
        assert "on_close callback" in caplog.text
        other.close()
    with pytest.raises(TypeError, match="plain function"):
        ws.on_close(_coroutine_function)


async def _coroutine_function(ending):
    raise AssertionError(ending)


def test_close_waits_at_most_a_second_for_a_hanging_callback():
    with served() as (_, address):
        ws = sync.connect(address + "/hold")
        release = threading.Event()
        ws.on_close(lambda ending: release.wait(3 * PROMPT))
        began = time.monotonic()
        ws.close()
        assert 0.9 < time.monotonic() - began < PROMPT
        release.set()


def test_messages_before_the_end_are_delivered_before_it_raises():
    with served() as (server, address):
        ws = sync.connect(address + "/hold")
        until(lambda: server.held)
        peer = server.held[0]

        def say() -> None:
            for number in range(10):
                peer.send(str(number))
            peer._core.close(Close(4001, "that was all"), 0.0)
            peer._stream.settle()

        peer._stream.loop.call_soon_threadsafe(say)
        until(lambda: not ws.is_open)
        assert [ws.recv() for _ in range(10)] == [str(number) for number in range(10)]
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv()
        assert closed.value.code == 4001
        assert ws.read() is None
        assert list(ws) == []


def test_an_unreferenced_connection_is_closed():
    with served() as (server, address):
        ws = sync.connect(address + "/hold")
        until(lambda: server.held)
        del ws
        until(lambda: server.held[0].ending)
        assert server.held[0].ending.received.code == 1000


def test_the_with_block_closes_with_1000_or_1001_if_interrupted():
    with served() as (_server, address):
        with sync.connect(address + "/hold") as ws:
            pass
        assert ws.ending.sent.code == 1000
        with pytest.raises(KeyboardInterrupt), sync.connect(address + "/hold") as ws:
            raise KeyboardInterrupt
        assert (ws.ending.cause, ws.ending.code) == (Cause.CANCELLED, 1001)


def test_wrong_arguments_raise_at_the_call_without_effect():
    with served() as (_, address), sync.connect(address + "/echo") as ws:
        for wrong in (None, 5, ["text"]):
            with pytest.raises(TypeError, match="message"):
                ws.send(wrong)
        with pytest.raises(ValueError, match=r"^message contains a lone surrogate"):
            ws.send("\ud800")
        for code, reason in ((1006, ""), (1000, "x" * 124)):
            with pytest.raises(ValueError, match=r"may not|reason"):
                ws.close(code, reason)
        with pytest.raises(ValueError, match="125 bytes"):
            ws.ping(bytes(126))
        changing = bytearray(b"as it was")
        ws.send(changing)
        changing[:] = b"different"
        ws.send(memoryview(b"view"))
        assert [ws.recv(), ws.recv()] == [b"as it was", b"view"]
        assert ws.ping(timeout=BOUND) == ws.latency
        with pytest.raises(TypeError):
            sync.connect(address, no_such_option=1)
        with pytest.raises(endwell.HandshakeRejected):
            sync.connect(address + "/nowhere")
