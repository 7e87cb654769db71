"""How TLS ends below a closing handshake: with close_notify sent and received, or without."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from endwell import Cause, Close, HandshakeError, Initiator, Response, Server, TcpEnd, connect
from tests.pair import nothing_left_behind, pair, within
from tests.raw import RawPeer, RawServer, TcpState, wss
from tests.wire.peer import BINARY, TEXT

#: More octets than a TLS record holds.
LARGE = bytes(100_000)


@pytest.fixture
def transport():
    return wss()


async def test_close_notify_comes_after_our_close_and_before_fin(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        await both.peer.close(4000)
        assert await both.peer.read_close() == Close(4000)
        if role == "client":
            await both.peer.send_close_notify()
        await within(both.peer.until_close_notify())
        seen = await both.peer.read_to_the_end()
    assert (seen.close_notify, seen.tcp) == (True, TcpEnd.FIN)
    assert (both.ws.ending.clean, both.ws.ending.tcp) == (True, TcpEnd.FIN)


async def test_a_close_notify_from_the_peer_ends_tcp_like_fin(role, transport, bytewise):
    # asyncio's own TLS transport waits for the answer to its close_notify, with TCP open.
    async with pair(role, transport, bytewise=bytewise) as both:
        closing = asyncio.ensure_future(both.ws.close(4000))
        assert await both.peer.read_close() == Close(4000)
        await both.peer.close(4000)
        await both.peer.send_close_notify()
        await within(both.peer.until_close_notify())
        assert both.peer.tcp_state in {TcpState.ESTABLISHED, TcpState.CLOSE_WAIT}  # no FIN from the peer
        seen = await both.peer.read_to_the_end()
        if role == "server":
            both.peer.fin()  # our side reads below TLS by now
        ending = await within(closing)
    assert (seen.close_notify, seen.tcp) == (True, TcpEnd.FIN)
    assert (ending.clean, ending.tcp) == (True, TcpEnd.FIN)


async def test_close_notify_without_a_close_is_peer_vanished(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        await both.peer.send_close_notify()
        seen = await both.peer.read_to_the_end()
    assert (seen.closes, seen.close_notify, seen.tcp) == (0, True, TcpEnd.FIN)
    ending = both.ws.ending
    assert (ending.cause, ending.initiator, ending.tcp) == (
        Cause.PEER_VANISHED,
        Initiator.NETWORK,
        TcpEnd.FIN,
    )
    assert ending.exception is None


async def test_fin_without_close_notify_after_both_closes_is_clean(role, transport, bytewise):
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
async def test_a_truncated_tls_record_is_reported_as_the_end_of_tcp(end, role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        record = both.peer.encrypt(both.peer.octets(TEXT, b"never complete"))
        await both.peer.send_tcp(record[:-5])
        await both.peer.until_acknowledged()
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
async def test_invalid_tls_records_are_a_tls_error(state, role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise) as both:
        if state == "closing":
            closing = asyncio.ensure_future(both.ws.close(4000))
            assert await both.peer.read_close() == Close(4000)
        await both.peer.send_tcp(b"\x17\x03\x03\x00\x20" + bytes(32))
        seen = await both.peer.read_to_the_end()
        ending = await both.ending()
        if state == "closing":
            assert await within(closing) is ending
    assert (seen.closes, seen.alert) == (0, "SSLV3_ALERT_BAD_RECORD_MAC")
    assert ending.cause is (Cause.TLS_ERROR if state == "open" else Cause.APP_CLOSED)
    assert isinstance(ending.exception, ssl.SSLError)
    assert (ending.clean, ending.tcp) == (False, TcpEnd.ERROR)


@pytest.mark.parametrize("where", ["within the head", "instead of a head"])
async def test_invalid_tls_records_in_the_handshake_get_an_alert(where, transport):
    server = Server()
    async with server.serving(ssl=transport.server, grace=0), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            if where == "within the head":
                await peer.write(b"GET / HTTP/1.1\r\n")
            await peer.send_tcp(b"\x17\x03\x03\x00\x20" + bytes(32))
            while await peer.more():
                pass
    assert peer.seen.alert == "SSLV3_ALERT_BAD_RECORD_MAC"


async def test_data_after_our_close_notify_causes_no_reset(transport, bytewise):
    async with pair("server", transport, bytewise=bytewise) as both:
        await both.peer.close(4001)
        await within(both.peer.until_close_notify())
        for _ in range(1 if bytewise else 30):
            await both.peer.frame(BINARY, LARGE[: 500 if bytewise else None])
        await both.peer.send_tcp(b"no TLS at all")
        await both.peer.until_acknowledged()
        assert await both.peer.read_close() == Close(4001)
        seen = await both.peer.read_to_the_end()
        assert seen.tcp is TcpEnd.FIN
        both.peer.fin()
        assert (await both.ending()).tcp is TcpEnd.FIN


async def test_close_notify_follows_an_http_response(transport, bytewise):
    server = Server()
    server.get("/")(lambda request: Response.text("x" * 1000))
    async with server.serving(ssl=transport.server, grace=0), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port, transport.client, bytewise=bytewise) as peer:
            await peer.tls_handshake()
            await peer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await peer.read_head()).startswith("HTTP/1.1 200 ")
            await within(peer.until_close_notify())
            await peer.send_close_notify()
            while await peer.more():
                pass
            assert (peer.seen.close_notify, peer.seen.tcp) == (True, TcpEnd.FIN)
        await asyncio.sleep(0.01)


async def test_a_server_with_an_untrusted_certificate_receives_an_alert():
    async def opened(uri):
        return await connect(uri, ssl=ssl.create_default_context())

    with RawServer(wss().server) as listening:
        async with nothing_left_behind():
            connecting = asyncio.ensure_future(opened(listening.uri))
            with await listening.accept_tcp() as peer:
                await peer.send_tcp(peer.tls_flight(await peer.recv_tcp()))
                with pytest.raises(HandshakeError) as raised:
                    await within(connecting)
                peer._in.write(await peer.recv_tcp())
                with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
                    peer._tls.do_handshake()
    ending = raised.value.ending
    assert ending.cause is Cause.TLS_ERROR
    assert isinstance(ending.exception, ssl.SSLCertVerificationError)


async def test_a_client_without_tls_leaves_nothing(transport, caplog):
    server = Server()
    async with server.serving(ssl=transport.server, grace=0), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request())
            while await peer.more():
                pass
        await asyncio.sleep(0.01)
    assert not caplog.records
