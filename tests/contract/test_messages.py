"""Messages arrive whole, in order and with their type."""

from __future__ import annotations

import asyncio
from array import array
from mmap import mmap

import pytest

from endwell import Cause, UnsupportedByProtocol
from tests.pair import until, within
from tests.wire.peer import BINARY, CONTINUATION, TEXT

LARGE = bytes(range(256)) * 1024  # 256 KiB
LONG = "grüß dich" * 2**15  # 352 KiB


def mapped(data):
    memory = mmap(-1, len(data))
    memory[:] = data
    return memory


async def echo(ws):
    async for message in ws:
        await ws.send(message)


@pytest.mark.needs("binary")
async def test_an_echo_returns_text_as_text_and_binary_as_binary(open_pair):
    messages = [
        (TEXT, "grüß dich".encode()),
        (BINARY, b"\x00\xff"),
        (TEXT, b""),
        (BINARY, b""),
        (BINARY, LARGE),
    ]
    async with open_pair(handler=echo) as both:
        for message in messages:
            await both.peer.frame(*message)
            assert await both.peer.read_frame() == message
        both.peer.fin()


@pytest.mark.needs("binary")
async def test_text_is_str_and_binary_is_bytes(open_pair):
    async with open_pair() as both:
        await both.peer.frame(TEXT, "grüß dich".encode())
        await both.peer.frame(BINARY, b"\x00\xff")
        assert await within(both.ws.recv()) == "grüß dich"
        assert await within(both.ws.recv()) == b"\x00\xff"


@pytest.mark.needs("binary")
@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ("grüß dich", (TEXT, "grüß dich".encode())),
        ("", (TEXT, b"")),
        (b"\x00\xff", (BINARY, b"\x00\xff")),
        (bytearray(b"array"), (BINARY, b"array")),
        (memoryview(b"every other")[::1], (BINARY, b"every other")),
        (array("H", [1, 515]), (BINARY, array("H", [1, 515]).tobytes())),
        (mapped(b"of a file"), (BINARY, b"of a file")),
    ],
)
async def test_str_is_sent_as_text_and_bytes_like_objects_as_binary(message, frame, open_pair):
    async with open_pair() as both:
        await within(both.ws.send(message))
        assert await both.peer.read_frame() == frame
        both.peer.fin()


@pytest.mark.parametrize("message", [None, 7, ["list"]])
async def test_an_invalid_message_raises_at_the_call_and_nothing_is_lost(message, open_pair):
    async with open_pair() as both:
        with pytest.raises(TypeError, match="message"):
            await both.ws.send(message)
        await within(both.ws.send("still there"))
        assert await both.peer.read_frame() == (TEXT, b"still there")
        both.peer.fin()


@pytest.mark.lacks("binary", "pings")
@pytest.mark.parametrize(
    "message",
    [b"", b"\x00\xff", bytearray(b"bytearray"), memoryview(b"view"), array("B", b"array")],
)
async def test_bytes_and_pings_raise_in_a_protocol_of_text_only(message, open_pair):
    async with open_pair(handler=echo) as both:
        await within(both.ws.send("before"))
        with pytest.raises(UnsupportedByProtocol, match=r"message must be a str: .* no binary messages"):
            await both.ws.send(message)
        with pytest.raises(UnsupportedByProtocol, match="no pings"):
            await both.ws.ping()
        await within(both.ws.send("after"))
        await both.peer.frame(TEXT, b"echo")
        frames = [await both.peer.read_frame() for _ in range(3)]
        assert frames == [(TEXT, b"before"), (TEXT, b"after"), (TEXT, b"echo")]
        both.peer.fin()
        ending = await both.ending()
    assert (ending.messages_out, ending.unsent_bytes) == (3, 0)


async def test_messages_keep_their_order_in_both_directions(open_pair):
    async with open_pair(handler=echo) as both:
        octets = [both.peer.octets(TEXT, str(number).encode()) for number in range(500)]
        writing = asyncio.ensure_future(both.peer.write(b"".join(octets)))
        for number in range(500):
            assert await both.peer.read_frame() == (TEXT, str(number).encode())
        await writing
        both.peer.fin()


@pytest.mark.needs("fragments")
async def test_a_message_in_fragments_arrives_as_one(open_pair):
    async with open_pair() as both:
        await both.peer.frame(TEXT, b"in ", fin=False)
        await both.peer.frame(CONTINUATION, b"two ", fin=False)
        await both.peer.frame(CONTINUATION, b"or three")
        assert await within(both.ws.recv()) == "in two or three"


async def test_concurrent_sends_keep_each_message_whole(open_pair):
    async with open_pair(buffer=16384) as both:
        messages = {f"{number:05}" * 2000 for number in range(30)}
        sending = asyncio.gather(*(both.ws.send(message) for message in messages))
        received = {(await both.peer.read_frame()).payload.decode() for _ in messages}
        await within(sending)
        both.peer.fin()
    assert received == messages


async def test_a_fast_sender_is_paused_and_no_message_is_lost(open_pair):
    async with open_pair(max_queue=2) as both:
        count = 40  # 14 MiB, more than the kernel buffers
        sending = asyncio.ensure_future(both.peer.write(both.peer.octets(TEXT, LONG.encode()) * count))
        core = both.face.engine(both.ws)._core
        await until(lambda: not core.wants_read())
        assert not sending.done()
        for _ in range(count):
            assert await within(both.ws.recv()) == LONG
        await within(sending)
        both.peer.fin()


@pytest.mark.needs("close")
async def test_a_message_larger_than_max_size_ends_with_1009(open_pair):
    async with open_pair(max_size=1000) as both:
        await both.peer.frame(TEXT, b"x" * 1000)
        assert await within(both.ws.recv()) == "x" * 1000
        await both.peer.frame(TEXT, b"x" * 1001)
        seen = await both.peer.read_to_the_end()
        both.peer.fin()
        assert await within(both.ws.read()) is None
        ending = await both.ending()
    assert (ending.cause, ending.sent.code) == (Cause.MESSAGE_TOO_BIG, 1009)
    assert seen.close == both.close_received(1009, ending.sent.reason)


@pytest.mark.needs("close")
async def test_messages_sent_before_close_arrive_before_the_close(open_pair):
    async with open_pair(buffer=16384, write_limit=16 * 2**20) as both:
        for number in range(8):
            await within(both.ws.send(f"{number} {LONG}"))
        await within(both.ws.send("last words"))
        closing = asyncio.ensure_future(both.ws.close(4000))
        for number in range(8):
            assert (await both.peer.read_frame()).payload.decode() == f"{number} {LONG}"
        assert await both.peer.read_frame() == (TEXT, b"last words")
        assert await both.peer.read_close() == both.close_received(4000)
        await both.peer.close(4000)
        both.peer.fin()
        ending = await within(closing)
    assert (ending.clean, ending.unsent_bytes, ending.messages_out) == (True, 0, 9)
