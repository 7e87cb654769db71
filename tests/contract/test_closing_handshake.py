"""The closing handshake on the wire: which side sends what, which side ends TCP, and the TCP states."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, Close, Initiator, TcpEnd
from endwell.protocol.closing import State
from tests.pair import pair, within
from tests.raw import BOUND, PROMPT, TcpState
from tests.wire.peer import BINARY, CONTINUATION, PING, TEXT

#: Seconds without activity that show that none follows.
WHILE = 0.05


async def leave_in_order(peer):
    """Read to the end of TCP, which the server ends first, and end it too."""
    if peer.server:
        assert await peer.is_silent(WHILE)
        assert peer.tcp_state is TcpState.ESTABLISHED  # the client waits for the server
        await peer.send_close_notify()
        peer.fin()
    seen = await peer.read_to_the_end()
    assert seen.tcp is TcpEnd.FIN
    assert seen.close_notify in {None, True}
    if not peer.server:
        assert peer.tcp_state is TcpState.CLOSE_WAIT  # the server ended TCP, the peer did not
    peer.sock.close()
    return seen


async def collect(ws, messages):
    async for message in ws:
        messages.append(message)


# -- both sides send a Close -----------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (4999, "ü" * 61), (None, "")])
async def test_the_peers_close_is_echoed_and_the_server_ends_tcp_first(
    role, transport, bytewise, code, reason
):
    async with pair(role, transport, bytewise=bytewise) as both:
        await both.peer.close(code, reason)
        answer = await both.peer.read_close()
        assert answer == Close(code, reason)
        assert not both.ws.is_open
        seen = await leave_in_order(both.peer)
        ending = await both.ending()
    assert seen.closes == 0  # besides the Close that was read above
    assert (ending.cause, ending.initiator) == (Cause.PEER_CLOSED, Initiator.PEER)
    assert ending.received == ending.sent == Close(code, reason)
    assert (ending.clean, ending.tcp) == (True, transport.fin)


async def test_our_close_is_answered_and_the_server_ends_tcp_first(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        closing = asyncio.ensure_future(both.ws.close(4000, "enough"))
        assert await both.peer.read_close() == Close(4000, "enough")
        assert await both.peer.is_silent(WHILE)
        assert both.peer.tcp_state is TcpState.ESTABLISHED  # neither side ends TCP before the answer
        await both.peer.close(4000)
        seen = await leave_in_order(both.peer)
        ending = await both.ending()
        assert await within(closing) is ending
    assert seen.closes == 0
    assert (ending.cause, ending.initiator) == (Cause.APP_CLOSED, Initiator.LOCAL)
    assert (ending.sent, ending.received) == (Close(4000, "enough"), Close(4000))
    assert (ending.clean, ending.tcp) == (True, transport.fin)


async def test_simultaneous_closes_complete_the_closing_handshake(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        closing = asyncio.ensure_future(both.ws.close(4000, "ours"))
        await asyncio.sleep(0)
        assert both.core.state is State.CLOSING
        await both.peer.close(4001, "theirs")  # which has not read our Close
        assert await both.peer.read_close() == Close(4000, "ours")
        seen = await leave_in_order(both.peer)
        ending = await within(closing)
    assert seen.closes == 0
    assert (ending.cause, ending.initiator) == (Cause.APP_CLOSED, Initiator.LOCAL)
    assert (ending.sent, ending.received) == (Close(4000, "ours"), Close(4001, "theirs"))
    assert (ending.clean, ending.tcp) == (True, transport.fin)


async def test_data_after_the_peers_close_is_discarded(role, transport, bytewise):
    messages = []
    async with pair(role, transport, bytewise=bytewise, handler=lambda ws: collect(ws, messages)) as both:
        peer = both.peer
        more = peer.octets(TEXT, b"late") + peer.octets(PING) + peer.close_octets(4002) + b"\xff" * 100
        await peer.write(peer.octets(TEXT, b"in time") + peer.close_octets(4001) + more)
        await peer.write(peer.octets(BINARY, bytes(1000)))
        assert await peer.read_close() == Close(4001)
        seen = await leave_in_order(peer)
    assert messages == ["in time"]
    assert (seen.closes, seen.frames) == (0, [])
    assert both.ws.ending.received == Close(4001)
    assert both.ws.ending.tcp is transport.fin


async def test_a_protocol_error_after_our_close_sends_no_second_close(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        closing = asyncio.ensure_future(both.ws.close(4000))
        assert await both.peer.read_close() == Close(4000)
        await both.peer.frame(CONTINUATION, b"of nothing")
        seen = await leave_in_order(both.peer)
        ending = await within(closing)
    assert seen.closes == 0
    assert (ending.cause, ending.clean, ending.tcp) == (Cause.APP_CLOSED, False, transport.fin)


async def test_messages_received_after_our_close_are_delivered(role, transport, bytewise):
    messages = []
    async with pair(role, transport, bytewise=bytewise, handler=lambda ws: collect(ws, messages)) as both:
        closing = asyncio.ensure_future(both.ws.close())
        assert await both.peer.read_close() == Close(1000)
        await both.peer.frame(TEXT, b"one")
        await both.peer.frame(TEXT, b"two")
        await both.peer.close()
        await leave_in_order(both.peer)
        assert (await within(closing)).clean
    assert messages == ["one", "two"]


# -- one side does not close ------------------------------------------------------


async def test_a_peer_that_never_answers_our_close_is_aborted_after_close_timeout(role, transport):
    async with pair(role, transport, close_timeout=0.2) as both:
        ending = await within(both.ws.close(4000))
        seen = await both.peer.read_to_the_end()
    assert (seen.close, seen.closes, seen.tcp) == (Close(4000), 1, TcpEnd.FIN)
    assert (ending.cause, ending.initiator) == (Cause.APP_CLOSED, Initiator.LOCAL)
    assert (ending.sent, ending.received, ending.clean) == (Close(4000), None, False)
    assert ending.tcp is TcpEnd.TIMEOUT
    assert 0.2 <= ending.duration < PROMPT  # not the default


@pytest.mark.waits
async def test_a_peer_that_answers_but_keeps_tcp_open_is_aborted_after_close_timeout(
    role, transport, bytewise
):
    # Long enough for the answer to come in time on a stalled machine.
    async with pair(role, transport, bytewise=bytewise, close_timeout=2.5, linger_timeout=10.0) as both:
        closing = asyncio.ensure_future(both.ws.close(4000))
        assert await both.peer.read_close() == Close(4000)
        await both.peer.close(4000)
        seen = await both.peer.read_to_the_end()
        assert both.peer.tcp_state is TcpState.CLOSE_WAIT
        ending = await within(closing)
    assert seen.tcp is TcpEnd.FIN
    assert (ending.clean, ending.received, ending.tcp) == (True, Close(4000), TcpEnd.TIMEOUT)
    assert 2.5 <= ending.duration < PROMPT


async def test_a_peer_that_closes_but_keeps_tcp_open_is_aborted_after_close_timeout(
    role, transport, bytewise
):
    async with pair(role, transport, bytewise=bytewise, close_timeout=0.2) as both:
        await both.peer.close(4001)
        ending = await both.ending()
        seen = await both.peer.read_to_the_end()
    assert (seen.close, seen.tcp) == (Close(4001), TcpEnd.FIN)
    assert (ending.cause, ending.clean, ending.tcp) == (Cause.PEER_CLOSED, True, TcpEnd.TIMEOUT)
    assert ending.duration >= 0.2


# -- the peer half-closes ---------------------------------------------------------


async def test_half_closing_without_a_close_is_answered_with_fin_only(role, transport):
    async with pair(role, transport) as both:
        both.peer.fin()
        seen = await both.peer.read_to_the_end()
    assert (seen.closes, seen.frames, seen.tcp) == (0, [], TcpEnd.FIN)
    ending = both.ws.ending
    assert (ending.cause, ending.initiator) == (Cause.PEER_VANISHED, Initiator.NETWORK)
    assert (ending.clean, ending.sent, ending.code, ending.tcp) == (False, None, 1006, transport.fin)


async def test_a_peer_that_half_closes_after_its_close_gets_the_answer(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        await both.peer.close(4001, "and FIN")
        both.peer.fin()
        seen = await both.peer.read_to_the_end()
    assert (seen.close, seen.closes, seen.tcp) == (Close(4001, "and FIN"), 1, TcpEnd.FIN)
    assert (both.ws.ending.cause, both.ws.ending.clean) == (Cause.PEER_CLOSED, True)
    assert both.ws.ending.tcp is transport.fin


async def test_half_closing_instead_of_answering_our_close_is_not_clean(role, transport):
    async with pair(role, transport) as both:
        closing = asyncio.ensure_future(both.ws.close(4000))
        assert await both.peer.read_close() == Close(4000)
        both.peer.fin()
        ending = await within(closing)
        seen = await both.peer.read_to_the_end()
    assert (seen.closes, seen.tcp) == (0, TcpEnd.FIN)
    assert (ending.cause, ending.clean, ending.tcp) == (Cause.APP_CLOSED, False, transport.fin)


# -- the peer keeps sending -------------------------------------------------------


def flood(peer, bytewise):
    """More data than the kernel's buffers hold, so that it arrives while a closing handshake is under way."""
    if bytewise:
        return peer.octets(BINARY, bytes(100)) * 10
    return peer.octets(BINARY, bytes(60_000)) * 100


async def test_our_close_reaches_a_peer_that_keeps_sending(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise, close_timeout=2 * BOUND) as both:
        peer = both.peer
        closing = asyncio.ensure_future(both.ws.close(4000, "enough"))
        await peer.write(flood(peer, bytewise))
        await peer.close(4000)
        assert await peer.read_close() == Close(4000, "enough")
        seen = await leave_in_order(peer)
        ending = await within(closing)
    assert (seen.closes, seen.frames) == (0, [])
    assert (ending.clean, ending.tcp) == (True, transport.fin)
    if not bytewise:
        # The application reads nothing; a full inbox has not blocked the closing handshake.
        assert ending.messages_in == 100
        assert 0 < ending.dropped_messages <= 100 - both.core.options.max_queue
        assert len(both.core.inbox) == 100 - ending.dropped_messages


async def test_our_answer_reaches_a_peer_that_keeps_sending_after_its_close(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise, close_timeout=2 * BOUND) as both:
        await both.peer.close(4001)
        await both.peer.write(flood(both.peer, bytewise))
        assert await both.peer.read_close() == Close(4001)
        seen = await leave_in_order(both.peer)
    assert (seen.closes, seen.frames) == (0, [])
    assert (both.ws.ending.clean, both.ws.ending.tcp) == (True, transport.fin)


async def test_an_error_code_reaches_a_peer_that_keeps_sending(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise, close_timeout=2 * BOUND) as both:
        await both.peer.frame(CONTINUATION, b"of nothing")
        await both.peer.write(flood(both.peer, bytewise))
        assert (await both.peer.read_close()).code == 1002
        seen = await leave_in_order(both.peer)
    assert (seen.closes, seen.frames) == (0, [])
    ending = both.ws.ending
    assert (ending.cause, ending.clean, ending.sent.code) == (Cause.PROTOCOL_ERROR, False, 1002)


async def test_a_peer_that_never_stops_sending_is_aborted_after_close_timeout(role, transport):
    async def send_on(peer):
        octets = peer.octets(BINARY, bytes(60_000))
        while True:
            await peer.write(octets)

    async with pair(role, transport, close_timeout=0.2) as both:
        sending = asyncio.ensure_future(send_on(both.peer))
        ending = await within(both.ws.close(4000))
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await within(sending)
    assert (ending.clean, ending.tcp) == (False, TcpEnd.TIMEOUT)
    assert 0.2 <= ending.duration < PROMPT  # not the default
