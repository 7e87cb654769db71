"""The counters of a connection, while it is open and in its ending."""

from __future__ import annotations

from tests.pair import until, within
from tests.wire.peer import TEXT

COUNTERS = ("messages_in", "messages_out", "bytes_in", "bytes_out", "dropped_messages")


def counters(source):
    return {name: getattr(source, name) for name in COUNTERS}


async def test_the_opening_handshake_does_not_count(open_pair):
    async with open_pair() as both:
        assert counters(both.ws) == dict.fromkeys(COUNTERS, 0)
        both.peer.fin()


async def test_each_message_counts_as_soon_as_it_is_read_or_sent(open_pair):
    async with open_pair() as both:
        for number, octets_out in ((1, 8), (2, 16)):
            await both.peer.frame(TEXT, b"hello")
            await within(both.ws.recv())
            await within(both.ws.send("good day"))
            await both.peer.read_frame()
            assert (both.ws.messages_in, both.ws.messages_out) == (number, number)
            assert both.ws.bytes_in >= number * len("hello")
            await until(lambda least=octets_out: both.ws.bytes_out >= least)
        both.peer.fin()


async def test_a_message_that_was_not_read_yet_counts_as_received(open_pair):
    async with open_pair() as both:
        await both.peer.frame(TEXT, b"hello")
        await until(lambda: both.ws.messages_in == 1)
        assert await within(both.ws.recv()) == "hello"
        both.peer.fin()


async def test_the_ending_has_the_same_figures(open_pair):
    async with open_pair() as both:
        await both.peer.frame(TEXT, b"hello")
        await within(both.ws.recv())
        await within(both.ws.send("good day"))
        await both.peer.read_frame()
        both.peer.fin()
        ending = await within(both.ws.wait_closed())
        assert counters(both.ws) == counters(ending)
        assert (ending.messages_in, ending.messages_out) == (1, 1)
