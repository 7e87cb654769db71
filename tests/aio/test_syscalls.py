from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec

import pytest

from endwell.aio import syscalls
from endwell.wire import payload

#: The plain functions with the buffer they fill, and the compiled ones if they are built.
FORMS = [(syscalls, payload)]
if find_spec("endwell.aio._syscalls"):
    FORMS.append((import_module("endwell.aio._syscalls"), import_module("endwell.wire._payload")))


@pytest.fixture(params=FORMS, ids=lambda forms: forms[0].__name__)
def forms(request):
    return request.param


def test_a_thread_has_one_identity(forms):
    calls, _ = forms
    assert calls.thread_ident() == threading.get_ident()


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_a_read_returns_data_then_would_block_then_eof(forms, ends):
    calls, _ = forms
    ours, theirs = ends
    buffer = bytearray(100)
    assert calls.receive(ours.fileno(), buffer) == -1
    theirs.sendall(b"octets")
    assert calls.receive(ours.fileno(), buffer) == 6
    assert buffer[:6] == b"octets"
    assert len(buffer) == 100
    theirs.close()
    assert calls.receive(ours.fileno(), buffer) == 0


def test_a_read_returns_new_bytes_then_nothing_then_eof(forms, ends):
    calls, _ = forms
    ours, theirs = ends
    buffer = bytearray(4)
    assert calls.receive_bytes(ours.fileno(), buffer, 9) is None
    theirs.sendall(b"octets")
    got = [calls.receive_bytes(ours.fileno(), buffer, size) for size in (9, 1, 9)]
    assert got == [b"octe", b"t", b"s"]
    theirs.close()
    assert calls.receive_bytes(ours.fileno(), buffer, 9) == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        calls.receive_bytes(-1, buffer, 9)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 17])
def test_a_read_fills_the_given_room_before_the_buffer(forms, ends, count):
    calls, payloads = forms
    ours, theirs = ends
    room, buffer, read = payloads.reserve(12), bytearray(100), bytearray(b"..ab")
    payloads.put(room, 0, read, 2, 4, b"")
    assert calls.receive_past(ours.fileno(), room, 2, 10, buffer) == -1
    data = os.urandom(count)
    theirs.sendall(data)
    assert calls.receive_past(ours.fileno(), room, 2, 10, buffer) == count
    inside = min(count, 10)
    assert bytes(payloads.whole(room))[: 2 + inside] == b"ab" + data[:10]
    assert buffer[: count - inside] == data[10:]
    assert len(buffer) == 100
    theirs.close()
    assert calls.receive_past(ours.fileno(), room, 2, 10, buffer) == 0


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_send_writes_the_given_number_of_bytes(forms, ends, kind):
    calls, _ = forms
    ours, theirs = ends
    assert calls.send(ours.fileno(), kind(b"octets"), 4) == 4
    assert theirs.recv(100) == b"octe"


def test_at_most_64_buffers_are_written_in_one_call(forms, ends):
    calls, _ = forms
    ours, theirs = ends
    assert calls.send_many(ours.fileno(), [b"a", memoryview(b"xbc")[1:]]) == 3
    assert theirs.recv(100) == b"abc"
    assert calls.send_many(ours.fileno(), [b"."] * 100) == 64


def test_a_full_socket_accepts_nothing_and_a_broken_one_raises(forms, ends):
    calls, _ = forms
    ours, theirs = ends
    data = bytes(2**16)
    for _ in range(1000):
        if calls.send(ours.fileno(), data, len(data)) < 0:
            break
    assert calls.send(ours.fileno(), data, 1) == -1
    assert calls.send_many(ours.fileno(), [data, data]) == -1
    theirs.close()
    with pytest.raises(BrokenPipeError):
        calls.send(ours.fileno(), data, 1)
    with pytest.raises(BrokenPipeError):
        calls.send_many(ours.fileno(), [data, data])


def test_a_reset_raises_once(forms):
    calls, _ = forms
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours:
        assert calls.error_of(ours) == 0
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert calls.error_of(ours) == errno.ECONNRESET
        assert calls.error_of(ours) == 0


@pytest.mark.parametrize("size", [0, 1, 5, 6])
def test_a_part_is_the_beginning_of_its_data(forms, size):
    calls, _ = forms
    data = bytearray(b"octets")
    part = calls.part(data, size)
    assert len(part) == size
    assert bytes(part) == data[:size]
    bio = ssl.MemoryBIO()
    assert bio.write(part) == size
    assert bio.read() == data[:size]


def test_a_part_prevents_that_its_data_is_resized_while_it_is_used(forms):
    calls, _ = forms
    data = bytearray(b"octets")
    with memoryview(calls.part(data, 3)) as view, pytest.raises(BufferError):
        data.clear()
    assert view is not None
    assert data == b"octets"


def test_a_part_is_never_longer_than_its_data(forms):
    calls, _ = forms
    data = bytearray(b"octets")
    part = calls.part(data, 6)
    with suppress(BufferError):  # plain Python: a memoryview exists as long as the part
        del data[2:]
    assert bytes(part) == data


def test_the_clock_of_one_thread_can_be_set(forms):
    calls, _ = forms
    before = time.monotonic()
    calls.set_clock(5.0)
    try:
        assert calls.monotonic() == 5.0
        with ThreadPoolExecutor(1) as other:
            assert other.submit(calls.monotonic).result() >= before
            for time_or_none in (6.0, None):
                with pytest.raises(RuntimeError, match="another thread has a virtual clock"):
                    other.submit(calls.set_clock, time_or_none).result()
        calls.set_clock(7.5)
        assert calls.monotonic() == 7.5
    finally:
        calls.set_clock(None)
    assert before <= calls.monotonic() <= time.monotonic()
