"""The worst that a peer of an old protocol can do: the limits and deadlines are those of RFC 6455."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, HandshakeError, TcpEnd, connect
from endwell.aio.syscalls import monotonic
from endwell.options import LEGACY
from tests.hostile.flood import flooding
from tests.hostile.honest import attacked
from tests.hostile.test_memory import LIMITS, RECEIVED, peak_below, send_all_accepted
from tests.old import peer_type
from tests.pair import nothing_left_behind, pair, until, within
from tests.raw import PROMPT, RawPeer, RawServer

HIXIE = ["hixie-76", "hixie-75"]
MAX_SIZE = 2**16
OPEN_TIMEOUT = 0.3


def is_about(seconds, expected):
    """Whether the expected limit applied; other limits take 10 seconds (``open_timeout``) or never apply."""
    return expected - 0.01 <= seconds < 9


# -- the opening ----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["hixie-76", "hybi-03"])
@pytest.mark.parametrize("came", [0, 1, 7])
async def test_missing_challenge_octets_end_after_open_timeout(came, version):
    async with attacked(legacy=True, open_timeout=OPEN_TIMEOUT) as server:
        began = monotonic()
        with await peer_type(version).connect_tcp(server.port) as peer:
            request = peer.request()
            await peer.write(request[: len(request) - 8 + came])
            await peer.read_to_the_end()
            assert is_about(monotonic() - began, OPEN_TIMEOUT)
        assert not server.handled


@pytest.mark.virtual_clock
async def test_slow_challenge_octets_do_not_extend_open_timeout():
    async with attacked(legacy=True, open_timeout=2.5) as server:
        began = monotonic()
        with await peer_type("hixie-76").connect_tcp(server.port) as peer:
            request = peer.request()
            await peer.write(request[:-8])
            for octet in request[-8:-1]:
                await asyncio.sleep(2.0)
                try:
                    await peer.write(bytes([octet]))
                except ConnectionError:
                    break
            await peer.read_to_the_end()
            # If an octet extended it, seven of them would make it 16.5 s.
            assert 2.49 <= monotonic() - began < 2.5 + PROMPT


@pytest.mark.parametrize("version", LEGACY)
async def test_a_client_of_a_disabled_old_protocol_gets_426(version):
    async with attacked(legacy=[name for name in LEGACY if name != version]) as server:
        with await peer_type(version).connect_tcp(server.port) as peer:
            await peer.write(peer.request())
            head = await peer.read_head()
            assert head.startswith("HTTP/1.1 426 ")
            assert "\r\nSec-WebSocket-Version: 13" in head
        assert not server.handled


@pytest.mark.parametrize("version", HIXIE)
async def test_a_page_of_another_origin_is_refused(version):
    async with attacked(legacy=True) as server:
        with await peer_type(version).connect_tcp(server.port) as peer:
            await peer.write(peer.request().replace(b"Host:", b"Origin: http://evil.example\r\nHost:", 1))
            assert (await peer.read_head()).startswith("HTTP/1.1 403 ")
        assert not server.handled


async def test_a_client_of_rfc_6455_with_old_fields_gets_no_old_response():
    async with attacked(legacy=True) as server:
        with await RawPeer.connect_tcp(server.port) as peer:
            keys = b"Sec-WebSocket-Key1: 1 2\r\nSec-WebSocket-Key2: 1 2\r\nSec-WebSocket-Draft: 3\r\n"
            await peer.write(peer.request().replace(b"Upgrade:", keys + b"Upgrade:", 1))
            head = await peer.read_head()
            assert "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
            assert "Location" not in head
            await peer.frame(1, b"today's")
            assert await peer.read_frame() == (1, b"today's")


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        *(("13", answered) for answered in ("hixie-76", "hixie-75")),
        *(("hybi-08", answered) for answered in ("hixie-76", "hixie-75")),
        *(("hybi-03", answered) for answered in ("13", "hixie-75")),
        *(("hixie-76", answered) for answered in ("13", "hixie-75")),
        *(("hixie-75", answered) for answered in ("13", "hixie-76")),
    ],
)
async def test_a_client_refuses_a_response_of_another_protocol(offered, answered):
    async with nothing_left_behind():
        with RawServer(peers=peer_type(offered)) as listening:
            connecting = asyncio.ensure_future(_opened(listening.uri, version=offered))
            with await listening.accept_tcp() as peer:
                await peer.read_head()
                await peer.write(ANSWERS[answered])
                with pytest.raises(HandshakeError) as raised:
                    await within(connecting)
    assert raised.value.ending.cause is Cause.HANDSHAKE_FAILED


_OLD = "Upgrade: WebSocket\r\nConnection: Upgrade\r\n{0}Origin: http://h\r\n{0}Location: ws://h/\r\n\r\n"
ANSWERS = {
    "13": b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    "hixie-76": b"HTTP/1.1 101 x\r\n" + _OLD.format("Sec-WebSocket-").encode() + bytes(16),
    "hixie-75": b"HTTP/1.1 101 x\r\n" + _OLD.format("WebSocket-").encode(),
}


async def _opened(uri, **options):
    return await connect(uri, **options)


@pytest.mark.virtual_clock
@pytest.mark.parametrize("came", [0, 15])
async def test_a_missing_proof_of_a_server_ends_after_open_timeout(came):
    async with nothing_left_behind():
        with RawServer(peers=peer_type("hixie-76")) as listening:
            began = monotonic()
            connecting = asyncio.ensure_future(_opened(listening.uri, version="hixie-76", open_timeout=2.5))
            with await listening.accept_tcp() as peer:
                answer = await peer.switching_protocols()
                await peer.write(answer[: len(answer) - 16 + came])
                with pytest.raises(HandshakeError) as raised:
                    await within(connecting)
            assert is_about(monotonic() - began, 2.5)
    assert raised.value.ending.tcp is TcpEnd.TIMEOUT


async def test_a_wrong_proof_fails_the_handshake():
    with RawServer(peers=peer_type("hixie-76")) as listening:
        connecting = asyncio.ensure_future(_opened(listening.uri, version="hixie-76"))
        with await listening.accept_tcp() as peer:
            response = await peer.switching_protocols()
            await peer.write(response[:-1] + bytes((response[-1] ^ 1,)))
            with pytest.raises(HandshakeError, match="not computed from this request's keys"):
                await within(connecting)


# -- messages -------------------------------------------------------------------------

#: By name: the code that is not transmitted, and the octets.
FAULTS = {
    "a text without its mark": (1009, b"\0" + b"x" * (MAX_SIZE + 1)),
    "a text above max_size": (1009, b"\0" + b"x" * (MAX_SIZE + 1) + b"\xff"),
    "a text that is not utf-8": (1007, b"\0\xc0\x80\xff"),
    "a text without its mark that is not utf-8": (1007, b"\0\xc0\x80"),
    "a length without end": (1002, b"\x80" + b"\x80" * 12),
    "a length without end of a closing frame": (1002, b"\xff" + b"\x80" * 12),
    "a frame of 2**63 - 1 bytes": (1009, b"\x80" + b"\xff" * 8 + b"\x7f"),
    "a frame above max_size that nobody reads": (1009, b"\x80\x84\x80\x01"),
    "a frame without its mark that nobody reads": (1009, b"\x01" + b"x" * (MAX_SIZE + 1)),
}
CAUSES = {1002: Cause.PROTOCOL_ERROR, 1007: Cause.INVALID_DATA, 1009: Cause.MESSAGE_TOO_BIG}


@pytest.mark.parametrize("version", HIXIE)
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_ends_the_connection_with_its_cause(name, version, role, caplog):
    code, octets = FAULTS[name]
    async with pair(role, version=version, max_size=MAX_SIZE) as both:
        both.peer.bytewise = len(octets) < 100
        await both.peer.write(b"\0good\xff")
        # Data after a fault is ignored.
        await both.peer.write(octets + b"\0smuggled\xff" * 10)
        seen = await both.peer.read_to_the_end(answer=True)
        both.peer.fin()
        ending = await both.ending()
        assert [message async for message in both.ws] == ["good"]
    assert seen.closes == (version == "hixie-76")
    assert (ending.cause, ending.code) == (CAUSES[code], 1005)
    assert ending.sent == both.close_sent(code, ending.sent.reason)
    assert not caplog.records


@pytest.mark.parametrize("version", HIXIE)
async def test_an_unterminated_slow_text_is_ended_by_idle_timeout(version, role):
    began = monotonic()
    async with pair(role, version=version, idle_timeout=0.3) as both:
        await both.peer.write(b"\0")
        while both.ws.is_open:
            await both.peer.write(b"x")
            await asyncio.sleep(0.02)
        assert is_about(monotonic() - began, 0.3)
        both.peer.drop()
        assert (await both.ending()).cause is Cause.IDLE_TIMEOUT


FLOODS = {
    "tiny texts": ("hixie-76", b"\0\xff" * 2**20),
    "tiny frames that nobody reads": ("hixie-76", b"\x80\0" * 2**20),
    "one endless text": ("hixie-76", b"\0" + b"x" * 2**23),
    "one endless frame that nobody reads": ("hixie-75", b"\x01" + b"x" * 2**23),
    "tiny messages": ("hybi-03", b"\x04\0" * 2**20),
    "empty fragments": ("hybi-03", b"\x84\0" + b"\x80\0" * 2**20),
    "pings": ("hybi-03", b"\x02\0" * 2**20),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_costs_no_more_memory_than_in_rfc_6455(name, role):
    version, octets = FLOODS[name]
    async with pair(role, version=version, close_timeout=0.6, **LIMITS) as both:
        with peak_below(RECEIVED + LIMITS["write_limit"]):
            await send_all_accepted(both.peer, octets, 0.4)
        both.peer.drop()
        both.ws.abort()


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_does_not_delay_other_connections(name):
    version, octets = FLOODS[name]
    async with attacked(legacy=True, max_size=2**24) as server:
        with await peer_type(version).connect(server.port) as peer:
            await server.forget()
            with flooding(peer, octets) as flooded:
                await until(lambda: flooded.sent > 2**16)
                await server.honest_trips(4)
        await server.ended()
