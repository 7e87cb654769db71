"""Malformed tokens in the opening handshake, and peers that send too many tokens or forged ones."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode, urlsafe_b64encode

import pytest

import endwell
from endwell import Cause, Close
from tests.pair import nothing_left_behind, until, within
from tests.raw import RawPeer
from tests.wire.peer import CONTINUATION, TEXT

TOKEN = "c2VjcmV0LTE"  # secret-1
RENEWAL = b"\x1abearer"
GREETING = b"\x1abearer secret-1"


def encoded(token):
    return urlsafe_b64encode(token).decode().rstrip("=")


class Site:
    """A server whose ``accept`` function takes every token."""

    def __init__(self, **options):
        self.server = endwell.Server(**options)
        self.tokens, self.got, self.endings = [], [], []
        self.server.on_close(lambda _ws, ending: self.endings.append(ending))

        @self.server.websocket("/", accept=self.accept)
        async def handler(ws):
            async for message in ws:
                self.got.append(message)
                await ws.send("got")

    async def accept(self, request):
        self.tokens.append(request.bearer)


async def ask(peer, *fields):
    """Send an opening request with these fields. Returns the head of the answer."""
    lines = "".join(f"\r\n{field}" for field in fields)
    await peer.write(peer.request().replace(b"\r\n\r\n", f"{lines}\r\n\r\n".encode("latin-1")))
    return await peer.read_head()


async def opened(site, transport, *fields):
    peer = await RawPeer.connect_tcp(site.server.port, transport.client)
    await peer.tls_handshake()
    head = await ask(peer, *(fields or (f"Sec-WebSocket-Protocol: endwell.bearer, bearer.{TOKEN}",)))
    assert head.startswith("HTTP/1.1 101 "), head
    return peer


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (["endwell.bearer, bearer."], "is not base64url without padding"),
        (["endwell.bearer, bearer.a"], "is not base64url without padding"),
        (["endwell.bearer, bearer.ab+d"], "is not base64url without padding"),
        (["endwell.bearer, bearer.c2VjcmV0LTE="], "is not base64url without padding"),
        (["endwell.bearer, bearer." + encoded(b"\xff\xfe")], "is not UTF-8"),
        (["endwell.bearer, bearer." + encoded("é".encode())], "printable ASCII"),
        (["endwell.bearer, bearer." + encoded(b"two words")], "printable ASCII"),
        (["endwell.bearer, bearer." + encoded(b"line\nend")], "printable ASCII"),
        (["endwell.bearer, bearer." + encoded(bytes(3))], "printable ASCII"),
        (["endwell.bearer, bearer." + encoded(b"x" * 8193)], "1 to 8192 printable ASCII"),
        (["endwell.bearer, bearer." + encoded(b"x" * 9000)], "has more than 8192 characters"),
        ([f"endwell.bearer, bearer.{TOKEN}, bearer.{TOKEN}"], "must not be repeated"),
        ([f"endwell.bearer, bearer.{TOKEN}", "bearer.eA"], "must not be repeated"),
        ([f"endwell.bearer, bearer.{TOKEN}, endwell.bearer"], "must not be repeated"),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
async def test_a_malformed_pair_gets_400_that_names_it(fields, text, bytewise, caplog):
    site, refused = Site(max_line=20_000, max_head=60_000), []
    site.server.on_refused(lambda _request, status, reason: refused.append((status, reason)))
    async with nothing_left_behind(), site.server.serving():
        with await RawPeer.connect_tcp(site.server.port, bytewise=bytewise and len(fields[0]) < 200) as peer:
            head = await ask(peer, *(f"Sec-WebSocket-Protocol: {value}" for value in fields))
            assert head.startswith("HTTP/1.1 400 ")
            await peer.read_to_the_end()
    assert site.tokens == []
    ((status, reason),) = refused
    assert status == 400
    assert text in reason
    assert ("endwell.bearer" if "repeated" in text else "the subprotocol bearer...") in reason
    for secret in fields[0].rpartition("bearer.")[2], "secret-1", TOKEN:
        assert len(secret) < 8 or secret not in caplog.text + reason


async def test_a_token_of_the_maximum_length_is_accepted():
    site = Site(max_line=20_000)
    async with site.server.serving():
        offer = f"Sec-WebSocket-Protocol: endwell.bearer, bearer.{encoded(b'x' * 8192)}"
        with await RawPeer.connect_tcp(site.server.port) as peer:
            assert (await ask(peer, offer)).startswith("HTTP/1.1 101 ")
    assert site.tokens == ["x" * 8192]


async def test_two_ways_for_the_token_get_400():
    site = Site()
    fields = f"Sec-WebSocket-Protocol: endwell.bearer, bearer.{TOKEN}", "Authorization: Bearer x"
    async with site.server.serving():
        with await RawPeer.connect_tcp(site.server.port) as peer:
            assert (await ask(peer, *fields)).startswith("HTTP/1.1 400 ")
    assert site.tokens == []


@pytest.mark.parametrize(
    "fields",
    [
        ("Sec-WebSocket-Protocol: endwell.bearer",),
        (f"Sec-WebSocket-Protocol: bearer.{TOKEN}",),
        ("Authorization: Bearer a", "Authorization: Bearer b", "Sec-WebSocket-Protocol: endwell.bearer"),
        ("Authorization: Basic YTpi", "Sec-WebSocket-Protocol: endwell.bearer"),
        ("X-Other: endwell.bearer",),
    ],
    ids=["mark without a token", "token without the mark", "two fields", "Basic", "in another field"],
)
async def test_half_of_it_is_no_token_and_takes_no_new_ones(fields, transport):
    site = Site()
    async with nothing_left_behind(), site.server.serving(ssl=transport.server):
        with await opened(site, transport, *fields) as peer:
            await peer.frame(TEXT, RENEWAL + b" forged")
            assert (await peer.read_frame()).payload == b"got"
            await peer.close()
            await peer.read_to_the_end()
    assert (site.tokens, site.got) == ([None], ["\x1abearer forged"])


async def test_a_page_with_the_heartbeat_that_offered_no_token_cannot_send_one():
    site = Site()
    async with site.server.serving():
        ws = await endwell.connect(f"ws://127.0.0.1:{site.server.port}/?endwell=heartbeat")
        assert await within(ws.recv()) == "\x06"
        await ws.send("\x1abearer forged")
        assert await within(ws.recv()) == "got"
        await ws.close()
    assert site.got == ["\x1abearer forged"]


async def test_the_heartbeat_and_new_tokens_share_a_connection():
    site = Site()
    async with site.server.serving():
        uri = f"ws://127.0.0.1:{site.server.port}/?endwell=heartbeat"
        ws = await endwell.connect(uri, subprotocols=["endwell.bearer", f"bearer.{TOKEN}"])
        assert [await within(ws.recv()) for _ in range(2)] == ["\x06", GREETING.decode()]
        for message in ("\x05", "\x1abearer secret-2", "\x1a", "\x1abearer", "\x05 "):
            await ws.send(message)
        assert [await within(ws.recv()) for _ in range(4)] == ["\x06", "got", "got", "got"]
        await until(lambda: site.tokens == ["secret-1", "secret-2"])
        await ws.close()
    assert site.got == ["\x1a", "\x1abearer", "\x05 "]


@pytest.mark.parametrize("frames", ["one read", "fragments"])
async def test_a_flood_of_tokens_ends_that_connection(frames, transport):
    site = Site()
    async with nothing_left_behind(), site.server.serving(ssl=transport.server):
        other = await opened(site, transport)
        with await opened(site, transport) as peer, other:
            assert (await peer.read_frame()).payload == GREETING
            for number in range(60):  # 10 at once and one per second are allowed, and the process may stall
                token = b" secret-%d" % number
                if frames == "one read":
                    await peer.frame(TEXT, RENEWAL + token)
                else:
                    await peer.frame(TEXT, RENEWAL[:3], fin=False)
                    await peer.frame(CONTINUATION, RENEWAL[3:] + token)
            assert await peer.read_close() == Close(1008, "too many tokens")
            await peer.close(1008)
            await peer.read_to_the_end()
            await until(lambda: site.endings)
            assert site.endings[0].cause is Cause.POLICY_LIMIT
            assert (await other.read_frame()).payload == GREETING
            await other.frame(TEXT, b"hello")
            assert (await other.read_frame()).payload == b"got"
            await other.close()
            await other.read_to_the_end()
    assert site.got == ["hello"]


@pytest.mark.virtual_clock
async def test_a_client_may_send_one_token_each_second_forever():
    site = Site()
    async with site.server.serving():
        ws = await endwell.connect(
            f"ws://127.0.0.1:{site.server.port}/",
            subprotocols=["endwell.bearer", f"bearer.{TOKEN}"],
            ping_interval=None,
        )
        for number in range(50):
            await ws.send(f"\x1abearer token-{number}")
            await asyncio.sleep(1.01)
        assert ws.is_open
        await ws.close()
    assert site.tokens[1:] == [f"token-{number}" for number in range(50)]


@pytest.mark.parametrize(
    "token",
    ["", " ", "two words", "x" * 8193, "é", "\x00"],
    ids=["empty", "space", "words", "long", "é", "NUL"],
)
async def test_a_malformed_new_token_is_refused_without_a_call(token, caplog):
    site = Site()
    with caplog.at_level(logging.DEBUG, "endwell.server"):
        async with nothing_left_behind(), site.server.serving():
            ws = await endwell.connect(
                f"ws://127.0.0.1:{site.server.port}/", subprotocols=["endwell.bearer", f"bearer.{TOKEN}"]
            )
            await ws.send(f"\x1abearer {token}")
            assert (await within(ws.closed)).received == Close(3000, "token refused")
    assert site.tokens == ["secret-1"]
    assert "words" not in caplog.text


def test_the_test_uses_base64url():
    assert encoded(b"secret-1") == b64encode(b"secret-1").decode().rstrip("=") == TOKEN
