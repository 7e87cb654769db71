"""recv(), read() and iteration: no message is lost, and the ending is reported after the last message."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Close, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, Server
from endwell.protocol.connection import AHEAD
from tests.pair import until, within
from tests.raw import BOUND
from tests.wire.peer import BINARY, CONTINUATION, TEXT


@pytest.mark.needs("binary")
async def test_read_returns_none_only_at_the_end(open_pair):
    async with open_pair() as both:
        await both.peer.frame(TEXT)
        await both.peer.frame(BINARY)
        await both.peer.close(4000)
        assert await within(both.ws.read()) == ""
        assert await within(both.ws.read()) == b""
        both.peer.fin()
        for _ in range(2):
            assert await within(both.ws.read()) is None


@pytest.mark.needs("close")
@pytest.mark.parametrize("how", ["Close 1000", "Close 1011", "FIN", "RST", "fault"])
async def test_messages_before_the_end_are_delivered_before_the_ending(how, open_pair):
    async with open_pair() as both:
        peer = both.peer
        for number in range(3):
            peer.send_at_once(peer.octets(TEXT, str(number).encode()))
        if how == "FIN":
            peer.fin()
        elif how == "RST":
            await peer.until_acknowledged()
            peer.reset()
        elif how == "fault":
            await peer.frame(TEXT, b"\xc3(")
        else:
            await peer.close(int(how.removeprefix("Close ")))
        if how != "RST":
            peer.fin()
        ending = await both.ending()
        assert await within(both.ws.recv()) == "0"
        assert await within(both.ws.read()) == "1"
        assert [message async for message in both.ws] == ["2"]
        ordinary = how == "Close 1000" or (how == "Close 1011" and both.close_received(1011) == Close())
        for _ in range(2):
            with pytest.raises(ConnectionClosedOK if ordinary else ConnectionClosedError) as raised:
                await within(both.ws.recv())
            assert raised.value.ending is ending
            assert await within(both.ws.read()) is None
            assert [message async for message in both.ws] == []


async def test_messages_are_readable_after_the_close_was_answered(open_pair):
    async with open_pair(answer_timeout=0.05) as both:
        peer = both.peer
        peer.send_at_once(peer.octets(TEXT, b"one") + peer.octets(TEXT, b"two") + peer.close_octets(4000))
        await until(lambda: not both.ws.is_open)
        assert await within(both.ws.read()) == "one"
        assert await within(both.ws.read()) == "two"
        peer.fin()
        assert await within(both.ws.read()) is None
        assert both.ws.ending.received == both.close_received(4000)


@pytest.mark.parametrize("how", ["Close", "FIN", "RST"])
async def test_a_waiting_recv_raises_when_the_connection_ends(how, open_pair):
    async with open_pair() as both:
        receiving = asyncio.ensure_future(both.ws.recv())
        await asyncio.sleep(0.01)
        if how == "Close":
            await both.peer.close(4000)
        if how == "RST":
            both.peer.reset()
        else:
            both.peer.fin()
        with pytest.raises(ConnectionClosed) as raised:
            await within(receiving)
        assert raised.value.ending is await both.ending()


@pytest.mark.parametrize("how", ["read", "iteration"])
async def test_recv_raises_only_when_the_ending_is_known(how, open_pair):
    async def last(ws):
        return await ws.read() if how == "read" else [message async for message in ws]

    async with open_pair() as both:
        waiting = asyncio.ensure_future(last(both.ws))
        await both.peer.close(4000)
        assert await both.peer.read_close() == both.close_received(4000)
        await asyncio.sleep(0.02)
        assert not both.ws.is_open
        assert not waiting.done()
        both.peer.fin()
        assert await within(waiting) in (None, [])
        assert both.ws.ending.received == both.close_received(4000)


async def test_a_recv_that_times_out_loses_nothing(open_pair):
    async with open_pair() as both:
        for word in ("later", "later still"):
            with pytest.raises(TimeoutError):
                await both.face.recv(both.ws, 0.01)
            assert both.ws.is_open
            await both.peer.frame(TEXT, word.encode())
            assert await both.face.recv(both.ws, BOUND) == word


@pytest.mark.current_protocol
async def test_a_recv_that_times_out_as_a_message_arrives_loses_nothing(open_pair):
    async with open_pair(max_queue=1000) as both:
        sent, received = [], []
        for number in range(40):
            receiving = asyncio.ensure_future(both.face.recv(both.ws, 0.004))
            await asyncio.sleep(0.003 + number % 10 / 4000)
            sent.append(str(number))
            both.peer.send_at_once(both.peer.octets(TEXT, sent[-1].encode()))
            try:
                received.append(await receiving)
            except TimeoutError:
                continue
        while len(received) < len(sent):
            received.append(await within(both.ws.recv()))
    assert received == sent


@pytest.mark.needs("fragments")
async def test_a_recv_that_times_out_within_a_message_keeps_its_parts(open_pair):
    async with open_pair() as both:
        await both.peer.frame(TEXT, b"in ", fin=False)
        with pytest.raises(TimeoutError):
            await both.face.recv(both.ws, 0.01)
        second = both.peer.octets(CONTINUATION, b"three ", fin=False)
        await both.peer.write(second[:-3])
        with pytest.raises(TimeoutError):
            await both.face.recv(both.ws, 0.01)
        await both.peer.write(second[-3:])
        await both.peer.frame(CONTINUATION, b"parts")
        assert await within(both.ws.recv()) == "in three parts"


async def test_a_timeout_of_zero_returns_an_available_message(open_pair):
    async with open_pair() as both:
        with pytest.raises(TimeoutError):
            await both.face.recv(both.ws, 0)
        await both.peer.frame(TEXT, b"first")
        assert await within(both.ws.recv()) == "first"
        both.peer.send_at_once(both.peer.octets(TEXT, b"second") + both.peer.octets(TEXT, b"third"))
        assert await within(both.ws.recv()) == "second"
        await until(lambda: both.core.inbox)  # the third message has arrived
        assert await both.face.recv(both.ws, 0) == "third"


@pytest.mark.current_protocol
async def test_a_long_message_is_read_only_when_the_application_receives(open_pair):
    size = 2**23
    async with open_pair(max_size=size) as both:
        core = both.face.engine(both.ws)._core
        sending = asyncio.ensure_future(both.peer.frame(BINARY, bytes(size)))
        await until(lambda: not core.wants_read())
        # One read may return as much as the kernel has.
        assert AHEAD <= core.partial_size < size
        assert len(await within(both.ws.recv())) == size
        await sending
        await until(core.wants_read)


@pytest.mark.current_protocol
@pytest.mark.parametrize("count", [1, 3])
async def test_recv_waits_for_the_rest_of_a_partial_message(count, open_pair):
    # The application waits before enough of the message has arrived to be left in the kernel.
    size = 3 * 2**20
    async with open_pair(max_size=size) as both:
        core = both.face.engine(both.ws)._core
        for _ in range(count):
            receiving = asyncio.ensure_future(both.ws.recv())
            octets = both.peer.octets(BINARY, bytes(size))
            await both.peer.write(octets[:100_000])
            await until(lambda: core.partial_size > 0)
            await both.peer.write(octets[100_000:])
            assert len(await within(receiving)) == size


@pytest.mark.current_protocol
async def test_two_peers_that_send_before_they_receive_do_not_deadlock(face, transport):
    size, finished = 3 * 2**20, []
    options = {"max_size": 2**23, "compression": None}
    server = Server(**options)

    async def talk(ws):
        for _ in range(3):
            await ws.send(bytes(size))
        for _ in range(3):
            assert len(await ws.recv()) == size
        finished.append(ws)

    server.websocket("/")(face.handler(talk))
    scheme = "ws" if transport.client is None else "wss"
    async with server.serving(ssl=transport.server):
        await within(
            face.run_client(talk, f"{scheme}://127.0.0.1:{server.port}/", ssl=transport.client, **options)
        )
        await until(lambda: len(finished) == 2)
