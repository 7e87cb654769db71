"""close(), is_open, on_close() and calls after the end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from endwell import Cause, Close, ConnectionClosed, Initiator, TcpEnd
from endwell.aio.syscalls import monotonic
from tests.pair import until, within
from tests.raw import BOUND, PROMPT
from tests.wire.peer import TEXT


async def closed(both, *how):
    """Close with the arguments ``how``; the peer answers and ends TCP."""
    closing = asyncio.ensure_future(both.ws.close(*how))
    received = await both.peer.read_close()
    await both.peer.close(received.code)
    both.peer.fin()
    return await within(closing), received


@pytest.mark.needs("close")
async def test_close_without_arguments_is_1000(open_pair):
    async with open_pair() as both:
        ending, received = await closed(both)
    assert (received, ending.sent) == (both.close_received(1000), both.close_sent(1000))
    assert (ending.cause, ending.initiator, ending.clean) == (Cause.APP_CLOSED, Initiator.LOCAL, True)


@pytest.mark.needs("codes")
@pytest.mark.parametrize("code", [1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999])
async def test_close_accepts_each_code_that_an_application_may_send(code, open_server_pair):
    async with open_server_pair() as both:
        ending, received = await closed(both, code, "x" * 123)
    assert received == ending.sent == Close(code, "x" * 123)
    assert ending.clean


@pytest.mark.needs("close")
@pytest.mark.parametrize(
    ("code", "reason"),
    [(code, "") for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70000)]
    + [(1000, "x" * 124), (1000, "ü" * 62), (4000, "\ud800")],
)
async def test_an_invalid_close_raises_and_leaves_the_connection_open(code, reason, open_server_pair):
    async with open_server_pair() as both:
        with pytest.raises(ValueError, match=r"."):
            await both.ws.close(code, reason)
        assert both.ws.is_open
        await both.ws.send("nothing lost")
        assert await both.peer.read_frame() == (TEXT, b"nothing lost")
        await both.peer.frame(TEXT, b"on both sides")
        assert await within(both.ws.recv()) == "on both sides"
        ending, received = await closed(both, 4000)
    assert received == both.close_received(4000)
    assert ending.cause is Cause.APP_CLOSED


@pytest.mark.needs("close")
async def test_every_call_of_close_returns_the_same_ending(open_pair):
    async with open_pair() as both:
        closings = [asyncio.ensure_future(both.ws.close(4000 + number, "me")) for number in range(3)]
        received = await both.peer.read_close()
        await both.peer.close(4000)
        both.peer.fin()
        endings = await within(asyncio.gather(*closings))
        for _ in range(3):
            endings.append(await within(both.ws.close(4999, "again")))
        endings.append(await within(both.ws.closed))
        await within(both.ws.wait_closed())
    assert {id(ending) for ending in endings} == {id(both.ws.ending)}
    sent = both.ws.ending.sent
    assert sent.code in {4000, 4001, 4002}
    assert (sent, received) == (both.close_sent(sent.code, "me"), both.close_received(sent.code, "me"))


@pytest.mark.needs("codes")
async def test_close_after_the_peers_close_does_not_raise(open_pair):
    async with open_pair() as both:
        await both.peer.close(4001, "they")
        both.peer.fin()
        ending = await both.ending()
        assert await within(both.ws.close(4000, "we")) is ending
    assert (ending.cause, ending.received, ending.sent) == (
        Cause.PEER_CLOSED,
        Close(4001, "they"),
        Close(4001, "they"),
    )


@pytest.mark.needs("close")
async def test_close_wakes_a_concurrent_recv_with_the_same_ending(open_pair):
    async with open_pair() as both:
        receiving = asyncio.ensure_future(both.ws.recv())
        await asyncio.sleep(0.02)
        began = monotonic()
        ending, _ = await closed(both, 4000, "done")
        with pytest.raises(ConnectionClosed) as raised:
            await within(receiving)
        assert monotonic() - began < PROMPT  # not close_timeout
    assert raised.value.ending is ending


@pytest.mark.needs("close")
async def test_close_wakes_a_concurrent_send_with_the_same_ending(open_pair):
    async def stream(ws):
        while True:
            await ws.send("x" * 2**20)

    async def streaming(ws):
        with pytest.raises(ConnectionClosed) as raised:
            await stream(ws)
        raises.append(raised.value)

    raises = []
    async with open_pair(handler=streaming, buffer=16384) as both:
        await asyncio.sleep(0.05)  # it waits for room
        closing = asyncio.ensure_future(both.ws.close(4000))
        await until(lambda: not both.ws.is_open)
        await both.peer.close(4000)
        seen = await both.peer.read_to_the_end()
        both.peer.drop()
        ending = await within(closing)
        await until(lambda: raises)
    assert [raised.ending is ending for raised in raises] == [True]
    assert (seen.close, len(seen.frames)) == (both.close_received(4000), ending.messages_out)


@pytest.mark.needs("close")
@pytest.mark.parametrize("who", ["we", "they"])
async def test_messages_accepted_by_send_arrive_despite_a_concurrent_close(who, open_pair, face):
    taken = []

    async def count(ws):
        while True:
            await ws.send(str(len(taken)))
            taken.append(None)
            if not len(taken) % 50:
                await face.pause(0)  # a thread lets the loop run: otherwise there are thousands more

    async def counting(ws):
        with pytest.raises(ConnectionClosed):
            await count(ws)

    async with open_pair(handler=counting) as both:
        await until(lambda: len(taken) > 10)
        if who == "we":
            closing = asyncio.ensure_future(both.ws.close(4000))
            seen = await both.peer.read_to_the_end(answer=True)
        else:
            await both.peer.close(4000)
            seen = await both.peer.read_to_the_end()
        both.peer.fin()
        ending = await both.ending()
        if who == "we":
            await within(closing)
    assert [frame.payload.decode() for frame in seen.frames] == [str(n) for n in range(len(taken))]
    assert (seen.close, ending.messages_out) == (both.close_received(4000), len(taken))


@pytest.mark.needs("close")
async def test_close_returns_after_close_timeout_without_an_answer(open_pair):
    async with open_pair(close_timeout=0.2) as both:
        began = monotonic()
        ending = await within(both.ws.close(4000))
        # 0.19: uvloop's clock counts whole milliseconds.
        assert 0.19 <= monotonic() - began < PROMPT  # not the default
    assert (ending.sent, ending.received, ending.clean) == (both.close_sent(4000), None, False)
    assert ending.tcp is TcpEnd.TIMEOUT


@pytest.mark.parametrize("how", ["Close", "FIN", "RST", "fault", "own"])
async def test_is_open_becomes_false_without_a_reader(how, open_pair):
    async with open_pair() as both:
        assert both.ws.is_open
        closing = None
        if how == "Close":
            await both.peer.close()
        elif how == "FIN":
            both.peer.fin()
        elif how == "RST":
            both.peer.reset()
        elif how == "fault":
            await both.peer.frame(TEXT, b"\xc3(")
        else:
            closing = asyncio.ensure_future(both.ws.close())
        await until(lambda: not both.ws.is_open)
        if closing is not None:
            both.peer.fin()
            await within(closing)


@pytest.mark.needs("codes")
@pytest.mark.parametrize(
    ("close", "code", "reason"), [((1001, "bye"), 1001, "bye"), ((None,), 1005, ""), (None, 1006, "")]
)
async def test_close_code_and_reason_are_those_of_a_browser(close, code, reason, open_pair):
    async with open_pair() as both:
        assert (both.ws.close_code, both.ws.close_reason, both.ws.ending) == (None, None, None)
        if close is not None:
            await both.peer.close(*close)
        both.peer.fin()
        await both.ending()
        assert (both.ws.close_code, both.ws.close_reason) == (code, reason)


@pytest.mark.needs("close")
@pytest.mark.parametrize("how", ["Close", "FIN", "RST", "own"])
async def test_after_the_end_every_call_raises_or_returns_the_ending(how, open_pair):
    async with open_pair() as both:
        if how == "own":
            await closed(both)
        elif how == "Close":
            await both.peer.close(1000)
            both.peer.fin()
        elif how == "FIN":
            both.peer.fin()
        else:
            both.peer.reset()
        ending = await both.ending()
        for more in (both.ws.send("x"), both.ws.send(b"x"), both.ws.ping(), both.ws.recv()):
            with pytest.raises(ConnectionClosed) as raised:
                await within(more)
            assert raised.value.ending is ending
        assert await within(both.ws.close(4000)) is ending


@pytest.mark.needs("close", "pings")
@pytest.mark.parametrize("how", ["FIN", "own"])
async def test_after_the_end_wrong_arguments_still_raise_their_own_error(how, open_pair):
    async with open_pair() as both:
        if how == "own":
            await closed(both)
        else:
            both.peer.fin()
        await both.ending()
        for message in (None, 7, ["list"]):
            with pytest.raises(TypeError, match="message must be a str or bytes-like"):
                await both.ws.send(message)
        with pytest.raises(ValueError, match=r"^message contains a lone surrogate"):
            await both.ws.send("\ud800")
        with pytest.raises(TypeError, match="payload must be bytes"):
            await both.ws.ping("text")
        with pytest.raises(ValueError, match="125"):
            await both.ws.ping(bytes(126))
        with pytest.raises(ValueError, match="1005"):
            await both.ws.close(1005)


# -- on_close() -------------------------------------------------------------------


@pytest.mark.needs("close")
@pytest.mark.parametrize("how", ["Close", "FIN", "RST", "fault", "own", "timeout"])
async def test_on_close_is_called_exactly_once_on_every_path(how, open_pair):
    async with open_pair(close_timeout=0.1 if how == "timeout" else 2 * BOUND) as both:
        calls = []
        both.ws.on_close(lambda ending: calls.append((1, ending, both.ws.is_open, both.ws.ending)))
        both.ws.on_close(lambda ending: calls.append((2, ending, both.ws.is_open, both.ws.ending)))
        if how == "own":
            await closed(both)
        elif how == "timeout":
            await within(both.ws.close())
        elif how == "RST":
            both.peer.reset()
        else:
            if how == "Close":
                await both.peer.close()
            elif how == "fault":
                await both.peer.frame(TEXT, b"\xc3(")
            both.peer.fin()
        ending = await both.ending()
        await until(lambda: len(calls) >= 2)
    assert calls == [(1, ending, False, ending), (2, ending, False, ending)]


async def test_on_close_after_the_end_is_called_at_once(open_pair):
    async with open_pair() as both:
        both.peer.fin()
        ending = await both.ending()
        calls = []
        both.ws.on_close(calls.append)
        assert calls == [ending]


async def test_a_failing_callback_is_logged_and_the_others_run(open_server_pair, caplog):
    def failing(ending):
        raise RuntimeError("oops")

    async with open_server_pair() as both:
        calls = []
        both.ws.on_close(failing)
        both.ws.on_close(calls.append)
        both.peer.fin()
        ending = await both.ending()
        await until(lambda: calls)
        assert calls == [ending]
        both.ws.on_close(failing)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert all("failing" in record.getMessage() for record in caplog.records)


async def test_on_close_refuses_a_coroutine_function(open_server_pair):
    async def coroutine_function(ending):
        raise AssertionError("it is never called")

    async with open_server_pair() as both:
        for wrong in (None, "x", coroutine_function):
            with pytest.raises(TypeError, match="plain function"):
                both.ws.on_close(wrong)
        both.peer.fin()


@pytest.mark.current_protocol
async def test_wait_closed_returns_the_ending(open_pair):
    async with open_pair() as both:
        waiting = asyncio.ensure_future(both.ws.wait_closed())
        both.peer.fin()
        ending = await within(waiting)
        assert ending is both.ws.ending
        assert await within(both.ws.wait_closed()) is ending
