"""Clients behind a proxy: every kind, its refusals, hostile ones, and the proxy that the environment names."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import sys
import traceback
from contextlib import asynccontextmanager

import pytest
from python_socks.async_.asyncio import Proxy

import endwell
from endwell import Cause, Close, HandshakeError, HandshakeRejected, Initiator, InvalidHandshake, TcpEnd
from endwell.aio.environment import environment_proxy
from endwell.aio.resolve import resolve
from endwell.aio.route import Route
from endwell.client.retry import RetryPolicy
from endwell.codes import Retry
from endwell.errors import ProxyError
from endwell.protocol.proxy import parse_proxy
from endwell.protocol.uri import parse_uri
from tests.pair import nothing_left_behind, within
from tests.raw import BOUND, HOST, RawServer, switching_protocols, wss
from tests.relay import KINDS, relaying

TARGET = "ws://chat.example/"
VARIABLES = ("ws", "wss", "socks", "http", "https", "no", "all")


@pytest.fixture
def environ(monkeypatch):
    """Sets proxy variables; all others are unset."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    return lambda **variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


@asynccontextmanager
async def served(transport):
    """An echo server."""
    server = endwell.Server()

    @server.websocket("/")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with server.serving(ssl=transport.server):
        server.url = f"{'ws' if transport.server is None else 'wss'}://{HOST}:{server.port}/"
        yield server


@pytest.mark.parametrize("kind", KINDS)
async def test_messages_and_endings_are_the_same_through_each_kind_of_proxy(kind, face, transport):
    tls = wss()
    async with served(transport) as server, relaying(kind, tls=tls.server) as relay:
        how = {"proxy_ssl": tls.client} if kind == "https" else {}
        ws = await within(
            face.connect(server.url, ssl=transport.client, proxy=relay.url(), compression=None, **how)
        )
        for message in ("a", "b" * 300_000, b"\0" * 70_000):
            await within(ws.send(message))
            assert await within(ws.recv()) == message
        assert (ws.tls is None) == (transport.server is None)
        ending = await within(ws.close())
        assert (ending.cause, ending.clean, ending.tcp) == (Cause.APP_CLOSED, True, TcpEnd.FIN)
        assert relay.asked == [(HOST, server.port)]


@pytest.mark.parametrize("kind", ["http", "https", "socks5h", "socks4"])
@pytest.mark.parametrize("name", ["ws over a transport", "wss over a transport"])
async def test_proxies_work_over_a_transport_of_the_loop(kind, name, use, face):
    transport, tls = use(name), wss()
    how = {"proxy_ssl": tls.client} if kind == "https" else {}
    async with served(transport) as server, relaying(kind, tls=tls.server) as relay:
        ws = await within(face.connect(server.url, ssl=transport.client, proxy=relay.url(), **how))
        for message in ("a", "b" * 300_000, b"\0" * 70_000):
            await within(ws.send(message))
            assert await within(ws.recv()) == message
        assert (ws.tls is None) == (transport.server is None)
        ending = await within(ws.close())
        assert (ending.cause, ending.clean) == (Cause.APP_CLOSED, True)


async def test_refusals_of_a_proxy_with_tls_are_the_same_over_a_transport(use, face):
    use("ws over a transport")
    tls = wss()
    async with (
        relaying("https", credentials=("ada", "secret"), tls=tls.server) as relay,
        nothing_left_behind(),
    ):
        with pytest.raises(HandshakeRejected) as caught:
            await within(face.connect(TARGET, proxy=relay.url(), proxy_ssl=tls.client))
        assert (caught.value.phase, caught.value.response.status) == ("proxy", 407)
        with pytest.raises(HandshakeError, match="certificate verify failed") as caught:
            await within(face.connect(TARGET, proxy=relay.url()))
        assert (caught.value.phase, caught.value.ending.cause) == ("proxy", Cause.TLS_ERROR)


async def test_bytes_behind_the_answer_of_a_proxy_are_not_lost_over_a_transport(use, face):
    use("ws over a transport")
    tls = wss()
    for uri, error in ((TARGET, "this looks like SSH"), (TARGET.replace("ws:", "wss:"), "before the TLS")):
        with RawServer(tls.server) as listening:
            proxy = f"https://{listening.uri.partition('://')[2]}"
            task = asyncio.ensure_future(face.connect(uri, proxy=proxy, proxy_ssl=tls.client))
            with await listening.accept_tcp() as peer:
                await peer.tls_handshake()
                await peer.read_head()
                await peer.write(HEAD + b"\r\nSSH-2.0-example\r\n")
                with pytest.raises(HandshakeError, match=error):
                    await within(task)


@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("when", ["TLS", "proxy", "tunnel", "TLS in TLS", "open"])
async def test_an_end_behind_a_proxy_with_tls_is_told_over_a_transport(end, when, use, face):
    use("ws over a transport")
    tls = wss()
    with RawServer(tls.server) as listening:
        proxy = f"https://{listening.uri.partition('://')[2]}"
        uri = TARGET.replace("ws:", "wss:") if when == "TLS in TLS" else TARGET
        how = {"ssl": tls.client} if when == "TLS in TLS" else {}
        task = asyncio.ensure_future(
            face.connect(uri, proxy=proxy, proxy_ssl=tls.client, open_timeout=None, **how)
        )
        with await listening.accept_tcp() as peer:
            if when == "TLS":
                await peer.recv_tcp()
            else:
                await peer.tls_handshake()
                await peer.read_head()
            if when in ("tunnel", "TLS in TLS", "open"):
                await peer.write(HEAD + b"\r\n")
                await (peer.more() if when == "TLS in TLS" else asyncio.sleep(0))
            if when == "open":
                await peer.write(switching_protocols(await peer.read_head()) + peer.octets(1, b"early"))
                ws = await within(task)
                assert await within(ws.recv()) == "early"
            getattr(peer, end)()
            if when == "open":
                ending = await within(ws.closed)
            else:
                with pytest.raises(HandshakeError) as caught:
                    await within(task)
                ending = caught.value.ending
                assert caught.value.phase == {"tunnel": "http", "TLS in TLS": "tls"}.get(when, "proxy")
    assert ending.cause is (Cause.PEER_VANISHED if end == "fin" else Cause.CONNECTION_RESET)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        ("http", "localhost"),
        ("socks5h", "localhost"),
        ("socks4a", "localhost"),
        ("socks5", HOST),
        ("socks4", HOST),
    ],
)
async def test_the_side_that_resolves_the_name_is_that_of_the_scheme(kind, asked):
    async with served(wss()) as server, relaying(kind) as relay:
        url = server.url.replace(HOST, "localhost")
        async with endwell.connect(url, ssl=wss().client, proxy=relay.url(), family=2) as ws:
            await ws.send("a")
            assert await within(ws.recv()) == "a"
        assert relay.asked == [(asked, server.port)]


@pytest.mark.parametrize("kind", ["http", "https", "socks4", "socks5h"])
async def test_credentials_reach_the_proxy_only(kind, face, transport, caplog):
    caplog.set_level(logging.DEBUG)
    tls = wss()
    async with (
        served(transport) as server,
        relaying(kind, tls=tls.server, credentials=("me@home", "s3:cret")) as relay,
    ):
        seen = []
        server.process_request(seen.append)
        userinfo = "me%40home@" if kind == "socks4" else "me%40home:s3%3Acret@"
        how = {"proxy_ssl": tls.client} if kind == "https" else {}
        ws = await within(face.connect(server.url, ssl=transport.client, proxy=relay.url(userinfo), **how))
        await within(ws.close())
    (request,) = seen
    assert not any("proxy" in name.lower() for name, _ in request.headers)
    assert_secret_free(caplog.text)


def assert_secret_free(text):
    # "bWVAaG9tZTpz" is the start of the base64 of "me@home:s". The log has random keys in base64, which contain
    # none of the characters ":", "@" and "%", and these 12 with a probability below 1e-19.
    for secret in ("s3:cret", "s3%3Acret", "me@home", "me%40home", "bWVAaG9tZTpz"):
        assert secret not in text


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("http", 407, "the proxy http://{} refused with HTTP 407 Proxy Authentication Required"),
        ("https", 407, "the proxy https://{} refused with HTTP 407 Proxy Authentication Required"),
        ("socks4", 93, "refused: the identd of this machine reports another user (SOCKS4 reply 93)"),
        ("socks5h", 1, "the proxy socks5h://{} refused: it refused the credentials (SOCKS5 status 1)"),
    ],
)
async def test_a_refusal_has_its_phase_and_response_and_no_credentials(kind, status, text, face, caplog):
    caplog.set_level(logging.DEBUG)
    tls = wss()
    async with relaying(kind, tls=tls.server, credentials=("other", "other")) as relay:
        userinfo = "me%40home@" if kind == "socks4" else "me%40home:s3%3Acret@"
        how = {"proxy_ssl": tls.client} if kind == "https" else {}
        target = TARGET.replace("chat.example", "10.1.1.1")
        with pytest.raises(HandshakeError) as caught:
            await within(face.connect(target, proxy=relay.url(userinfo), **how))
        assert relay.asked == []
    failure = caught.value
    assert text.format(f"{HOST}:{relay.port}") in str(failure)
    assert failure.phase == "proxy"
    assert (failure.ending.cause, failure.ending.initiator) == (Cause.HANDSHAKE_REJECTED, Initiator.PEER)
    reason = failure.ending.exception
    assert (type(reason), reason.reply) == (ProxyError, status)
    if kind.startswith("http"):
        assert isinstance(failure, HandshakeRejected)
        assert failure.response.headers["Proxy-Authenticate"] == 'Basic realm="relay"'
        assert failure.response.body == b"who?"
    assert RetryPolicy().retry(failure) is Retry.NEVER
    shown = "".join(traceback.format_exception(failure)) + repr(failure) + repr(reason)
    assert_secret_free(shown + caplog.text + str(failure.ending.as_dict()))
    copy = pickle.loads(pickle.dumps(failure))
    assert (copy.phase, str(copy)) == (failure.phase, str(failure))


@pytest.mark.parametrize(
    ("kind", "text", "retry"),
    [
        ("http", "refused with HTTP 502 Bad Gateway", Retry.LATER),
        ("socks4", "refused: request rejected or failed (SOCKS4 reply 91)", Retry.LATER),
        ("socks5", "refused: connection refused (SOCKS5 reply 5)", Retry.LATER),
    ],
)
async def test_a_proxy_that_cannot_reach_the_server_is_asked_again_later(kind, text, retry):
    async with relaying(kind) as relay:
        with pytest.raises(HandshakeError) as caught:
            await within(endwell.connect(f"ws://{HOST}:1/", proxy=relay.url()))
    assert text in str(caught.value)
    assert RetryPolicy().retry(caught.value) is retry


async def test_a_server_that_the_protocol_of_the_proxy_cannot_name_is_a_failure_of_this_side(face):
    with RawServer() as listening, pytest.raises(HandshakeError) as caught:
        await within(face.connect("ws://[fd00::1]/", proxy=listening.uri.replace("ws:", "socks4a:")))
    assert "cannot be used: SOCKS4 has no IPv6 addresses" in str(caught.value)
    ending = caught.value.ending
    assert (caught.value.phase, ending.cause) == ("proxy", Cause.HANDSHAKE_FAILED)
    assert ending.initiator is Initiator.LOCAL
    assert RetryPolicy().retry(caught.value) is Retry.NEVER


async def test_a_redirect_to_an_address_with_a_zone_is_refused_through_a_proxy(face):
    with RawServer() as listening:
        async with relaying("http") as relay:
            task = asyncio.ensure_future(face.connect(listening.uri, proxy=relay.url()))
            answer = b"HTTP/1.1 302 Found\r\nLocation: ws://[fe80::1%25lo]/\r\nContent-Length: 0\r\n\r\n"
            with await listening.accept(answer), pytest.raises(HandshakeRejected) as caught:
                await within(task)
    assert "is not followed: uri has a zone, which a proxy cannot know" in str(caught.value)
    assert caught.value.phase == "http"


@pytest.fixture
def two_addresses(monkeypatch):
    """The name two.example has an IPv6 address, and then an IPv4 address."""

    async def resolved(host, port, of_family=0):
        if host != "two.example":
            return await resolve(host, port, of_family)
        both = [(socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, (HOST, port))]
        return [(family, address) for family, address in both if of_family in (0, family)]

    monkeypatch.setattr("endwell.aio.reach.resolve", resolved)


async def test_a_proxy_that_resolves_no_names_is_asked_for_the_next_address(two_addresses, face, transport):
    async with served(transport) as server, relaying("socks5") as relay:  # on IPv4 only
        url = server.url.replace(HOST, "two.example")
        how = {"server_hostname": HOST} if transport.server else {}
        ws = await within(face.connect(url, ssl=transport.client, proxy=relay.url(), **how))
        await within(ws.send("a"))
        assert await within(ws.recv()) == "a"
        await within(ws.close())
        assert relay.asked == [("::1", server.port), (HOST, server.port)]


async def test_the_refusal_of_all_addresses_names_them(two_addresses, face):
    async with relaying("socks5") as relay:
        with pytest.raises(HandshakeError) as caught:
            await within(face.connect("ws://two.example:1/", proxy=relay.url()))
    refused = "connection refused (SOCKS5 reply 5)"
    assert str(caught.value).endswith(f" refused: [::1]:1: {refused}, {HOST}:1: {refused}")
    assert caught.value.ending.exception.reply == 5
    assert RetryPolicy().retry(caught.value) is Retry.LATER


async def test_refused_credentials_are_not_sent_again_for_another_address(two_addresses, face):
    async with relaying("socks5", credentials=("me", "right")) as relay:
        with pytest.raises(HandshakeError, match="refused the credentials"):
            await within(face.connect("ws://two.example:1/", proxy=relay.url("me:wrong@")))
        assert relay.logins == 1


@pytest.mark.parametrize("kind", ["socks4", "socks4a"])
async def test_an_ipv6_address_is_no_target_of_socks4_and_is_not_tried_again(kind, face):
    async with relaying(kind) as relay:
        with pytest.raises(HandshakeError, match="SOCKS4 has no IPv6 addresses") as caught:
            await within(face.connect("ws://[::1]:1/", proxy=relay.url()))
    assert RetryPolicy().retry(caught.value) is Retry.NEVER


async def test_a_socks_proxy_that_wants_credentials_says_so():
    async with relaying("socks5", credentials=("a", "b")) as relay:
        with pytest.raises(HandshakeError, match="it requires credentials") as caught:
            await within(endwell.connect(f"ws://{HOST}:1/", proxy=relay.url()))
    assert RetryPolicy().retry(caught.value) is Retry.NEVER


async def test_a_refused_connection_to_the_proxy_names_the_proxy(face):
    with pytest.raises(HandshakeError) as caught:
        await within(face.connect(TARGET, proxy=f"http://u:p@{HOST}:1"))
    assert str(caught.value) == (
        f"ws://chat.example:80/: the proxy http://{HOST}:1 failed: "
        f"cannot connect to {HOST}:1: Connection refused"
    )
    assert caught.value.phase == "proxy"
    assert caught.value.ending.tcp is TcpEnd.NONE


async def test_an_untrusted_certificate_of_the_proxy_is_a_failure_of_the_proxy(face):
    async with relaying("https", tls=wss().server) as relay, nothing_left_behind():
        with pytest.raises(HandshakeError, match="certificate verify failed") as caught:
            await within(face.connect(TARGET, proxy=relay.url()))
    assert (caught.value.phase, caught.value.ending.cause) == ("proxy", Cause.TLS_ERROR)


async def test_a_redirect_by_the_proxy_is_not_followed():
    """A captive portal answers every CONNECT with its page."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/login\r\nContent-Length: 0\r\n\r\n"
    with RawServer() as listening:
        task = asyncio.ensure_future(endwell.connect(TARGET, proxy=listening.uri.replace("ws:", "http:")))
        with await listening.accept_tcp() as peer:
            await peer.read_head()
            await peer.write(answer)
            with pytest.raises(HandshakeRejected, match=r"302 Found$") as caught:
                await within(task)
    assert caught.value.phase == "proxy"


# -- hostile proxies ------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("kind", "answer", "error", "text"),
    [
        ("http", HEAD + b"X: y\r\n" * 1000, InvalidHandshake, "the head has more than"),
        ("http", HEAD + b"X: " + b"y" * 2**17, InvalidHandshake, "of the head is above"),
        ("http", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 9000, InvalidHandshake, "the head is above"),
        ("http", b"\0" * 100, InvalidHandshake, "the response is not HTTP: it begins with"),
        ("http", b"\x15\x03\x01\x00\x02\x02\x46", InvalidHandshake, "use https:// for the proxy?"),
        ("http", b"HTTP/1.1 101 Switching\r\n\r\n", ProxyError, "refused with HTTP 101 Switching"),
        (
            "socks5",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            InvalidHandshake,
            "answer is not SOCKS5: it begins with b'HT'",
        ),
        ("socks5", b"\x05\x02", InvalidHandshake, "the SOCKS5 method 2, which was not offered"),
        ("socks5", b"\x05\x00\x05\x00\x00\x07", InvalidHandshake, None),
        ("socks5", b"\x05\x00\x05\x00\x00\x07\x00\x00", InvalidHandshake, "the SOCKS5 address type 7"),
        ("socks5", b"\x05\x00\x05\x63", ProxyError, "unknown reply (SOCKS5 reply 99)"),
        ("socks4", b"\x05\x00", InvalidHandshake, "answer is not SOCKS4"),
    ],
    ids=lambda value: repr(value)[:25] if isinstance(value, bytes) else None,
)
async def test_a_wrong_answer_of_a_proxy_fails_at_once(kind, answer, error, text):
    with RawServer() as listening:
        async with nothing_left_behind():
            proxy = f"{kind}{listening.uri.removeprefix('ws')}"
            task = asyncio.ensure_future(endwell.connect(f"ws://{HOST}:1/", proxy=proxy, open_timeout=None))
            with await listening.accept_tcp() as peer:
                sending = asyncio.ensure_future(peer.write(answer))
                if text is None:  # half an answer
                    peer_sent = within(sending)
                    await peer_sent
                    peer.fin()
                    error, text = type(None), "ended TCP before it had connected"
                with pytest.raises(HandshakeError) as caught:
                    await within(task)
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    assert text in str(caught.value)
    assert caught.value.phase == "proxy"
    assert type(caught.value.ending.exception) is error


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("half", [b"", b"HTTP/1.1 200 O"], ids=["nothing", "half"])
async def test_a_proxy_that_ends_tcp_is_told_as_it_ended(end, half, secure, face):
    tls = wss()
    with RawServer(tls.server if secure else None) as listening:
        proxy = f"http{'s' if secure else ''}://{listening.uri.partition('://')[2]}"
        how = {"proxy_ssl": tls.client} if secure else {}
        task = asyncio.ensure_future(face.connect(TARGET, proxy=proxy, open_timeout=None, **how))
        with await listening.accept_tcp() as peer:
            await peer.tls_handshake()
            await peer.read_head()
            await peer.write(half)
            await peer.until_acknowledged()
            getattr(peer, end)()
            with pytest.raises(HandshakeError) as caught:
                await within(task)
    ending = caught.value.ending
    assert caught.value.phase == "proxy"
    if end == "fin":
        assert (ending.cause, ending.tcp) == (Cause.PEER_VANISHED, TcpEnd.FIN)
    else:
        assert (ending.cause, ending.tcp) == (Cause.CONNECTION_RESET, TcpEnd.RST)


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_a_refusal_that_the_end_of_tcp_completes_is_told_with_its_status(secure, face):
    """Many proxies end TCP without a close_notify. The refusal is final, unlike a proxy that vanishes."""
    tls = wss()
    with RawServer(tls.server if secure else None) as listening:
        proxy = f"http{'s' if secure else ''}://{listening.uri.partition('://')[2]}"
        how = {"proxy_ssl": tls.client} if secure else {}
        task = asyncio.ensure_future(face.connect(TARGET, proxy=proxy, open_timeout=None, **how))
        with await listening.accept_tcp() as peer:
            await peer.tls_handshake()
            await peer.read_head()
            await peer.write(b"HTTP/1.1 407 No\r\n\r\nlog in first")
            await peer.until_acknowledged()
            peer.fin()
            with pytest.raises(HandshakeRejected) as caught:
                await within(task)
    assert caught.value.phase == "proxy"
    assert (caught.value.response.status, caught.value.response.body) == (407, b"log in first")


@pytest.mark.waits
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("end", ["never", "fin", "rst", "malformed"])
async def test_a_refusal_of_a_proxy_whose_body_is_incomplete_is_told(secure, end, face):
    tls = wss()
    with RawServer(tls.server if secure else None) as listening:
        proxy = f"http{'s' if secure else ''}://{listening.uri.partition('://')[2]}"
        how = {"proxy_ssl": tls.client} if secure else {}
        limit = 2.5 if end == "never" else None
        task = asyncio.ensure_future(face.connect(TARGET, proxy=proxy, open_timeout=limit, **how))
        with await listening.accept_tcp() as peer:
            await peer.tls_handshake()
            await peer.read_head()
            chunk = b"no size\r\n" if end == "malformed" else b""
            await peer.write(b"HTTP/1.1 407 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlog i\r\n" + chunk)
            if end == "fin":
                peer.fin()
            elif end == "rst":
                await peer.until_acknowledged()
                peer.reset()
            with pytest.raises(HandshakeRejected) as caught:
                await within(task)
    assert (caught.value.phase, caught.value.ending.cause) == ("proxy", Cause.HANDSHAKE_REJECTED)
    assert (caught.value.response.status, caught.value.response.body) == (407, b"log i")


@pytest.mark.parametrize("kind", ["http", "https"])
async def test_bytes_of_the_server_that_come_with_the_answer_of_the_proxy_are_not_lost(kind):
    tls = wss()
    with RawServer(tls.server if kind == "https" else None) as listening:
        how = {"proxy_ssl": tls.client} if kind == "https" else {}
        proxy = f"{kind}://{listening.uri.partition('://')[2]}"
        task = asyncio.ensure_future(endwell.connect(TARGET, proxy=proxy, open_timeout=None, **how))
        with await listening.accept_tcp() as peer:
            await peer.tls_handshake()
            await peer.read_head()
            await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSSH-2.0-example\r\n")
            with pytest.raises(HandshakeError, match="this looks like SSH") as caught:
                await within(task)
    assert caught.value.phase == "http"


async def test_tls_bytes_that_come_with_the_answer_of_the_proxy_are_those_of_the_server(face):
    """A server's alert, in one segment with the answer."""
    alert = b"\x15\x03\x03\x00\x02\x02\x28"
    with RawServer() as listening:
        proxy = listening.uri.replace("ws:", "http:")
        task = asyncio.ensure_future(
            face.connect("wss://chat.example/", proxy=proxy, open_timeout=None, ssl=wss().client)
        )
        with await listening.accept_tcp() as peer:
            await peer.tls_handshake()
            await peer.read_head()
            await peer.write(b"HTTP/1.1 200 OK\r\n\r\n" + alert)
            with pytest.raises(HandshakeError) as caught:
                await within(task)
    assert (caught.value.phase, caught.value.ending.cause) == ("tls", Cause.TLS_ERROR)
    assert "alert" in str(caught.value).lower()


# -- endings through a tunnel ---------------------------------------------------------------------


@pytest.mark.parametrize("end", ["notify", "fin", "reset", "close"])
async def test_an_end_within_the_tls_session_of_the_proxy_is_told_truthfully(end, face):
    """``ws://`` through a proxy with TLS: the peer plays the proxy and the server."""
    tls = wss()
    with RawServer(tls.server) as listening:
        proxy = f"https://{listening.uri.partition('://')[2]}"
        task = asyncio.ensure_future(
            face.connect(TARGET, proxy=proxy, proxy_ssl=tls.client, compression=None)
        )
        with await listening.accept_tcp() as peer:
            await peer.tls_handshake()
            await peer.read_head()
            await peer.write(HEAD + b"\r\n")
            await peer.write(switching_protocols(await peer.read_head()) + peer.octets(1, b"early"))
            ws = await within(task)
            assert await within(ws.recv()) == "early"
            if end == "close":
                await peer.close(4001, "x")
                assert await peer.read_close() == Close(4001, "x")
                peer.fin()
            elif end == "notify":
                await peer.send_close_notify()
            else:
                getattr(peer, end)()
            ending = await within(ws.closed)
    assert {
        "notify": (Cause.PEER_VANISHED, TcpEnd.FIN),
        "fin": (Cause.PEER_VANISHED, TcpEnd.FIN),
        "reset": (Cause.CONNECTION_RESET, TcpEnd.RST),
        "close": (Cause.PEER_CLOSED, TcpEnd.FIN),
    }[end] == (ending.cause, ending.tcp)


@pytest.mark.parametrize("kind", ["http", "https"])
@pytest.mark.parametrize("end", ["cut", "end"])
async def test_a_tunnel_that_the_proxy_ends_is_told_truthfully(kind, end, face, transport):
    tls = wss()
    async with served(transport) as server, relaying(kind, tls=tls.server) as relay:
        how = {"proxy_ssl": tls.client} if kind == "https" else {}
        ws = await within(face.connect(server.url, ssl=transport.client, proxy=relay.url(), **how))
        await within(ws.send("a"))
        assert await within(ws.recv()) == "a"
        if end == "cut":
            relay.cut()
        else:
            relay.end()
        ending = await within(ws.closed)
    if end == "cut":
        assert (ending.cause, ending.tcp) == (Cause.CONNECTION_RESET, TcpEnd.RST)
    else:
        assert (ending.cause, ending.tcp) == (Cause.PEER_VANISHED, TcpEnd.FIN)


# -- reconnecting ---------------------------------------------------------------------------------


async def test_reconnecting_uses_the_proxy_each_time(face, transport):
    async with served(transport) as server, relaying("http") as relay:
        policy = RetryPolicy(base=0.01, max_delay=0.01)
        client = face.reconnecting(server.url, proxy=relay.url(), ssl=transport.client, policy=policy)
        count = 0
        connections = aiter(client)
        while count < 2:
            ws = await within(anext(connections))
            count += 1
            relay.cut()
            await within(ws.closed)
        await within(client.aclose())
        assert len(relay.asked) >= 2


async def test_reconnecting_stops_after_a_407(face):
    async with relaying("http", credentials=("a", "b")) as relay:
        with pytest.raises(HandshakeRejected, match="407"):
            await within(anext(aiter(face.reconnecting(TARGET, proxy=relay.url()))))
        assert len(relay.heads) == 1


# -- the environment ------------------------------------------------------------------------------

ALL = {f"{name}_proxy": f"http://{name}.proxy:1" for name in ("ws", "wss", "https", "http")} | {
    "socks_proxy": "socks5://socks.proxy:1"
}


def without(*names):
    return {name: url for name, url in ALL.items() if name.partition("_")[0] not in names}


@pytest.mark.parametrize(
    ("uri", "variables", "proxy"),
    [
        ("ws://a.example/", ALL, "http://ws.proxy:1"),
        ("ws://a.example/", without("ws"), "socks5://socks.proxy:1"),
        ("ws://a.example/", without("ws", "socks"), "http://https.proxy:1"),
        ("ws://a.example/", without("ws", "socks", "https"), "http://http.proxy:1"),
        ("ws://a.example/", without("ws", "socks", "https", "http"), None),
        ("wss://a.example/", ALL, "http://wss.proxy:1"),
        ("wss://a.example/", without("wss"), "socks5://socks.proxy:1"),
        ("wss://a.example/", without("wss", "socks"), "http://https.proxy:1"),
        ("wss://a.example/", without("wss", "socks", "https"), None),
        ("ws://a.example/", {"HTTP_PROXY": "http://up:1"}, "http://up:1"),
        ("ws://a.example/", {"HTTP_PROXY": "http://up:1", "http_proxy": "low:2"}, "http://low:2"),
        ("ws://a.example/", {"HTTP_PROXY": "http://up:1", "http_proxy": ""}, None),
        ("ws://a.example/", {"HTTP_PROXY": "http://up:1", "REQUEST_METHOD": "GET"}, None),
        ("ws://a.example/", {"HTTPS_PROXY": "http://up:1", "REQUEST_METHOD": "GET"}, "http://up:1"),
        ("ws://a.example/", {"ALL_PROXY": "http://up:1"}, None),
        ("ws://a.example/", {"socks_proxy": "http://up:1"}, "socks5h://up:1"),
        ("ws://a.example/", {"socks_proxy": "up:1"}, "socks5h://up:1"),
        ("ws://a.example/", {"http_proxy": "up"}, "http://up:80"),
        ("ws://a.example/", {"http_proxy": "https://up"}, "https://up:443"),
        ("ws://a.example/", {"http_proxy": "socks5://[::1]/"}, "socks5://[::1]:1080"),
    ],
)
@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the system may have a proxy")
def test_the_proxy_of_the_environment(uri, variables, proxy, environ):
    environ(**variables)
    found = environment_proxy(parse_uri(uri))
    assert (None if found is None else str(found)) == proxy


@pytest.mark.parametrize(
    ("host", "exceptions", "excepted"),
    [
        ("a.example", "*", True),
        ("b\u00fccher.example", "B\u00fccher.example", True),
        ("a.b\u00fccher.example", ".b\u00fccher.example:80", True),
        ("a.example", "\u00df\u200d.example a..\u00fc", False),
        ("a.example", "a.example", True),
        ("a.example", "x, A.Example", True),
        ("a.example", "example", True),
        ("a.example", ".example", True),
        ("a.example", "*.example", True),
        ("a.example", "xample", False),
        ("a.example.", "a.example", True),
        ("a.example", "a.example:80", True),
        ("a.example", "a.example:81", False),
        ("a.example", ".", False),
        ("a.example", "10.0.0.0/8", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3:80", True),
        ("10.1.2.3", "10.1.2.3:81", False),
        ("10.1.2.3", "2.3", False),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]", "[fd00::1]:80", True),
        ("[fd00::1]", "fd00::2", False),
        # Loopback addresses and zones need no exception.
        ("localhost", "", True),
        ("a.localhost", "", True),
        ("127.0.0.2", "", True),
        ("0.0.0.0", "", True),
        ("[::1]", "", True),
        ("[::ffff:127.0.0.1]", "", True),
        ("[fe80::1%25eth0]", "", True),
        ("localhost.example", "", False),
    ],
)
def test_no_proxy_and_loopback_addresses(host, exceptions, excepted, environ):
    environ(ws_proxy="http://proxy:1", NO_PROXY=exceptions)
    assert (environment_proxy(parse_uri(f"ws://{host}/")) is None) == excepted


async def test_the_environment_is_used_by_default_and_not_with_none(face, environ):
    async with served(wss()) as server, relaying("http", hosts={"chat.example": HOST}) as relay:
        environ(https_proxy=relay.url())
        url = server.url.replace(HOST, "chat.example")
        ws = await within(face.connect(url, ssl=wss().client, server_hostname="localhost"))
        await within(ws.close())
        assert relay.asked == [("chat.example", server.port)]
        environ(https_proxy=f"http://{HOST}:1")
        ws = await within(face.connect(server.url, ssl=wss().client))  # a loopback address
        await within(ws.close())
        ws = await within(
            face.connect(url, ssl=wss().client, server_hostname="localhost", proxy=None, host=HOST)
        )
        await within(ws.close())
        assert len(relay.asked) == 1


async def test_a_malformed_proxy_of_the_environment_is_a_failure_without_its_url(face, environ):
    environ(http_proxy="ftp://user:s3cret@proxy")
    with pytest.raises(HandshakeError, match="the http proxy of the environment must begin with") as caught:
        await within(face.connect(TARGET))
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.phase == "proxy"
    assert RetryPolicy().retry(caught.value) is Retry.NEVER


# -- misuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("face_of", [endwell, endwell.sync], ids=["asyncio", "sync"])
@pytest.mark.parametrize("what", ["connect", "reconnecting"])
@pytest.mark.parametrize(
    ("keywords", "error", "text"),
    [
        ({"proxy": False}, ValueError, "^proxy must be True, a URL or None, not False"),
        ({"proxy": b"http://s3cret@x"}, TypeError, "^proxy must be True, a URL or None, not bytes"),
        ({"proxy": "ftp://u:s3cret@x"}, ValueError, "^proxy must begin with one of http://, "),
        ({"proxy": "http://u:s3cret@x/path"}, ValueError, "^proxy has a path"),
        ({"proxy": "http://u:s3cret@:80"}, ValueError, "^proxy is malformed"),
        ({"proxy": "http://u:s3cret@x:0"}, ValueError, "^proxy has port 0"),
        ({"proxy": "http://u:s3cret@x#f"}, ValueError, "^proxy has a fragment"),
        ({"proxy": "http://u:s3cret\n@x"}, ValueError, "^proxy contains white space"),
        ({"proxy": "socks4://u:s3cret@x"}, ValueError, "^proxy has a password, but SOCKS4 has none"),
        ({"proxy": "socks5://s3cret@x"}, ValueError, "^proxy needs a user name and a password"),
        ({"proxy": f"socks5://u:{'s3cret' * 50}@x"}, ValueError, "^proxy needs a user name and a password"),
        ({"proxy": "http://x", "unix_path": "/s"}, ValueError, "^proxy has no effect with unix_path"),
        ({"proxy_ssl": True}, TypeError, "^proxy_ssl must be an ssl.SSLContext"),
        ({"proxy": "http://x", "proxy_ssl": wss().client}, ValueError, "^proxy_ssl is given, but proxy"),
        ({"proxy": None, "proxy_ssl": wss().client}, ValueError, "^proxy_ssl is given, but proxy"),
    ],
)
def test_a_wrong_proxy_is_named_without_its_credentials(face_of, what, keywords, error, text):
    with pytest.raises(error, match=text) as caught:
        getattr(face_of, what)("ws://x/", **keywords)
    assert "s3cret" not in str(caught.value)


def test_a_zone_and_a_proxy_contradict_each_other():
    with pytest.raises(ValueError, match="uri has a zone, which a proxy cannot know"):
        endwell.connect("ws://[fe80::1%25eth0]/", proxy="http://x")


def test_a_parsed_proxy_shows_no_credentials():
    proxy = parse_proxy("socks5h://me%40home:s3%3Acret@[::1]:7")
    assert (proxy.username, proxy.password) == ("me@home", "s3:cret")
    assert str(proxy) == "socks5h://[::1]:7"
    assert_secret_free(str(proxy) + repr(proxy))


def test_the_arguments_of_a_client_show_no_credentials():
    """A debugger or a log of tracebacks with their local variables shows the repr() of internal objects, too."""
    route = Route(proxy="http://me%40home:s3cret@proxy.example")
    assert_secret_free(repr(route) + repr(parse_uri("wss://me%40home:s3cret@chat.example/")))


@pytest.mark.parametrize("kind", ["http", "socks4", "socks5"])
async def test_another_implementation_of_a_client_accepts_the_proxy_of_these_tests(kind, transport):
    """And its socket can be the one of a connection."""
    credentials = None if kind == "socks4" else ("me", "s3cret")
    async with served(transport) as server, relaying(kind, credentials=credentials) as relay:
        proxy = Proxy.from_url(relay.url("" if credentials is None else "me:s3cret@"))
        sock = await proxy.connect(HOST, server.port, timeout=BOUND)
        async with endwell.connect(server.url, ssl=transport.client, sock=sock) as ws:
            await ws.send("a")
            assert await within(ws.recv()) == "a"
        assert relay.asked == [(HOST, server.port)]
