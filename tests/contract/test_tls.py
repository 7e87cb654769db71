"""How TLS ends below a closing handshake: close_notify, said and heard, or missing."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from endwell import Cause, Close, HandshakeError, Initiator, Response, Server, TcpEnd, connect
from tests.pair import nothing_left_behind, pair, within
from tests.raw import RawPeer, RawServer, TcpState, wss
from tests.wire.peer import BINARY, TEXT

#: More than a TLS record holds.
LARGE = bytes(100_000)


@pytest.fixture
def transport():
    return wss()


async def test_close_notify_comes_after_our_close_and_before_fin(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        await both.peer.close(4000)
        assert await both.peer.read_close() == Close(4000)
        if role == "client":
            await both.peer.notify()
        await within(both.peer.until_notified())
        seen = await both.peer.read_to_the_end()
    assert (seen.notified, seen.tcp) == (True, TcpEnd.FIN)
    assert (both.ws.ending.clean, both.ws.ending.tcp) == (True, TcpEnd.FIN)


async def test_close_notify_ends_tcp_as_fin_does_for_a_peer_that_waits_for_ours(role, transport, bytewise):
    # asyncio's own TLS transport waits for the answer to its close_notify, with TCP open.
    async with pair(role, transport, bytewise=bytewise) as both:
        closing = asyncio.ensure_future(both.ws.close(4000))
        assert await both.peer.read_close() == Close(4000)
        await both.peer.close(4000)
        await both.peer.notify()
        await within(both.peer.until_notified())
        assert both.peer.tcp_state in {TcpState.ESTABLISHED, TcpState.CLOSE_WAIT}  # no FIN from the peer
        seen = await both.peer.read_to_the_end()
        if role == "server":
            both.peer.fin()  # our side looks below TLS by now
        ending = await within(closing)
    assert (seen.notified, seen.tcp) == (True, TcpEnd.FIN)
    assert (ending.clean, ending.tcp) == (True, TcpEnd.FIN)


async def test_close_notify_without_a_close_is_a_peer_that_vanished(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        await both.peer.notify()
        seen = await both.peer.read_to_the_end()
    assert (seen.closes, seen.notified, seen.tcp) == (0, True, TcpEnd.FIN)
    ending = both.ws.ending
    assert (ending.cause, ending.initiator, ending.tcp) == (
        Cause.PEER_VANISHED,
        Initiator.NETWORK,
        TcpEnd.FIN,
    )
    assert ending.exception is None


async def test_a_fin_without_close_notify_after_the_closes_is_a_clean_ending_still(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        closing = asyncio.ensure_future(both.ws.close(4000))
        assert await both.peer.read_close() == Close(4000)
        await both.peer.close(4000)
        both.peer.fin()
        seen = await both.peer.read_to_the_end()
        ending = await within(closing)
    assert seen.tcp is TcpEnd.FIN
    assert (ending.clean, ending.tcp, ending.exception) == (True, TcpEnd.FIN, None)


@pytest.mark.parametrize("end", ["FIN", "RST"])
async def test_a_record_cut_short_is_told_as_the_end_of_tcp_that_it_was(end, role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        record = both.peer.sealed(both.peer.octets(TEXT, b"never complete"))
        await both.peer.transmit(record[:-5])
        await both.peer.delivered()
        if end == "FIN":
            both.peer.fin()
        else:
            both.peer.reset()
        ending = await both.ending()
    assert ending.messages_in == 0
    assert (ending.cause, ending.tcp) == {
        "FIN": (Cause.PEER_VANISHED, TcpEnd.FIN),
        "RST": (Cause.CONNECTION_RESET, TcpEnd.RST),
    }[end]


@pytest.mark.parametrize("state", ["open", "closing"])
async def test_octets_that_are_no_tls_are_told_as_a_tls_error(state, role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        if state == "closing":
            closing = asyncio.ensure_future(both.ws.close(4000))
            assert await both.peer.read_close() == Close(4000)
        await both.peer.transmit(b"\x17\x03\x03\x00\x20" + bytes(32))
        seen = await both.peer.read_to_the_end()
        ending = await both.ending()
        if state == "closing":
            assert await within(closing) is ending
    assert (seen.closes, seen.alert) == (0, "SSLV3_ALERT_BAD_RECORD_MAC")
    assert ending.cause is (Cause.TLS_ERROR if state == "open" else Cause.APP_CLOSED)
    assert isinstance(ending.exception, ssl.SSLError)
    assert (ending.clean, ending.tcp) == (False, TcpEnd.ERROR)


@pytest.mark.parametrize("where", ["within the head", "instead of a head"])
async def test_octets_that_are_no_tls_are_answered_with_an_alert_before_it_is_open_too(where, transport):
    server = Server()
    async with server.serving(ssl=transport.server, grace=0), nothing_left_behind():
        with await RawPeer.reach(server.port, transport.client) as peer:
            await peer.shake()
            if where == "within the head":
                await peer.write(b"GET / HTTP/1.1\r\n")
            await peer.transmit(b"\x17\x03\x03\x00\x20" + bytes(32))
            while await peer.more():
                pass
    assert peer.seen.alert == "SSLV3_ALERT_BAD_RECORD_MAC"


async def test_what_comes_after_our_close_notify_does_not_turn_our_fin_into_a_reset(transport, bytewise):
    async with pair("server", transport, bytewise=bytewise) as both:
        await both.peer.close(4001)
        await within(both.peer.until_notified())
        for _ in range(1 if bytewise else 30):
            await both.peer.frame(BINARY, LARGE[: 500 if bytewise else None])
        await both.peer.transmit(b"no TLS at all")
        await both.peer.delivered()
        assert await both.peer.read_close() == Close(4001)
        seen = await both.peer.read_to_the_end()
        assert seen.tcp is TcpEnd.FIN
        both.peer.fin()
        assert (await both.ending()).tcp is TcpEnd.FIN


async def test_close_notify_follows_an_http_answer(transport, bytewise):
    server = Server()
    server.get("/")(lambda request: Response.text("x" * 1000))
    async with server.serving(ssl=transport.server, grace=0), nothing_left_behind():
        with await RawPeer.reach(server.port, transport.client, bytewise=bytewise) as peer:
            await peer.shake()
            await peer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await peer.read_head()).startswith("HTTP/1.1 200 ")
            await within(peer.until_notified())
            await peer.notify()
            while await peer.more():
                pass
            assert (peer.seen.notified, peer.seen.tcp) == (True, TcpEnd.FIN)
        await asyncio.sleep(0.01)


async def test_a_server_whose_certificate_is_not_trusted_is_told_so():
    async def opened(uri):
        return await connect(uri, ssl=ssl.create_default_context())

    with RawServer(wss().server) as listening:
        async with nothing_left_behind():
            connecting = asyncio.ensure_future(opened(listening.uri))
            with await listening.reached() as peer:
                await peer.transmit(peer.flight(await peer.octets_below()))
                with pytest.raises(HandshakeError) as raised:
                    await within(connecting)
                peer._in.write(await peer.octets_below())
                with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
                    peer._tls.do_handshake()
    ending = raised.value.ending
    assert ending.cause is Cause.TLS_ERROR
    assert isinstance(ending.exception, ssl.SSLCertVerificationError)


async def test_a_client_that_speaks_no_tls_is_forgotten(transport, caplog):
    server = Server()
    async with server.serving(ssl=transport.server, grace=0), nothing_left_behind():
        with await RawPeer.reach(server.port) as peer:
            await peer.write(peer.request())
            while await peer.more():
                pass
        await asyncio.sleep(0.01)
    assert not caplog.records
