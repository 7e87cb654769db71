from __future__ import annotations

import os
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.errors import InvalidHandshake, ProtocolError
from endwell.options import Deflate
from endwell.wire.deflate import PerMessageDeflate, accept, confirm, offer
from endwell.wire.extensions import parse_extensions
from tests.linear import takes_linear_time

WIDE = Deflate(server_max_window_bits=15, client_max_window_bits=15)


def inflate(deflate: PerMessageDeflate, *chunks: bytes, limit: int | None = None) -> bytes:
    """A whole message."""
    message = bytearray()
    for chunk in chunks[:-1]:
        deflate.decompress(chunk, False, message, limit)
    deflate.decompress(chunks[-1], True, message, limit)
    return bytes(message)


def both(settings: Deflate) -> tuple[PerMessageDeflate, PerMessageDeflate]:
    return PerMessageDeflate(settings, client=True), PerMessageDeflate(settings, client=False)


def prose(size: int) -> bytes:
    """Text that compresses, with matches near and far."""
    words = [f"word{i}".encode() for i in range(500)]
    choice = random.Random(size).choice
    return b" ".join(choice(words) for _ in range(size // 6 + 1))[:size]


# RFC 7692 §7.2.3.1: one block with fixed codes; in two fragments.
def test_the_hello_example_of_the_rfc_is_inflated() -> None:
    hello = bytes.fromhex("f2 48 cd c9 c9 07 00")
    client, server = both(WIDE)
    assert client.compress(b"Hello") == hello
    assert inflate(server, hello) == b"Hello"
    assert inflate(both(WIDE)[0], hello[:3], hello[3:]) == b"Hello"


# §7.2.3.2: the second Hello refers to the first.
def test_the_shared_window_example_of_the_rfc_is_inflated() -> None:
    client, server = both(WIDE)
    assert [client.compress(b"Hello"), client.compress(b"Hello")] == [
        bytes.fromhex("f2 48 cd c9 c9 07 00"),
        bytes.fromhex("f2 00 11 00 00"),
    ]
    assert inflate(server, bytes.fromhex("f2 48 cd c9 c9 07 00")) == b"Hello"
    assert inflate(server, bytes.fromhex("f2 00 11 00 00")) == b"Hello"


def test_without_context_takeover_messages_are_independent() -> None:
    client, server = both(Deflate(client_no_context_takeover=True))
    hello = bytes.fromhex("f2 48 cd c9 c9 07 00")
    assert [client.compress(b"Hello"), client.compress(b"Hello")] == [hello, hello]
    assert inflate(server, hello) == b"Hello"
    with pytest.raises(ProtocolError, match="corrupt"):
        inflate(server, bytes.fromhex("f2 00 11 00 00"))


@pytest.mark.parametrize(
    "payload",
    [
        "00 05 00 fa ff 48 65 6c 6c 6f 00",  # §7.2.3.3: a block without compression
        "f3 48 cd c9 c9 07 00 00",  # §7.2.3.4: BFINAL is 1
        "f2 48 05 00 00 00 ff ff ca c9 c9 07 00",  # §7.2.3.5: two blocks
    ],
)
def test_other_hello_examples_of_the_rfc_are_inflated(payload: str) -> None:
    data = bytes.fromhex(payload)
    _, server = both(WIDE)
    for _ in range(3):
        assert inflate(server, data) == b"Hello"
        assert inflate(server, *(data[i : i + 1] for i in range(len(data)))) == b"Hello"
    assert inflate(server, bytes.fromhex("f2 48 cd c9 c9 07 00")) == b"Hello"


# §7.2.3.6: an empty message is one octet of 0.
def test_an_empty_message_is_one_octet() -> None:
    assert inflate(both(WIDE)[0], b"\0") == b""


def test_an_empty_message_is_not_compressed() -> None:
    assert PerMessageDeflate(Deflate(min_size=0), client=True).min_size == 1
    assert PerMessageDeflate(Deflate(min_size=77), client=True).min_size == 77


@pytest.mark.parametrize("payload", [b"\x06", b"\xff" * 10, b"\x00\x05\x00\x00\x00", b"\x07\x00"])
def test_invalid_deflate_data_is_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="compressed data is corrupt"):
        inflate(both(WIDE)[0], payload + bytes(20))


def objects(deflate: PerMessageDeflate) -> list[object]:
    return [held for held in (deflate._compressor, deflate._inflater) if held is not None]


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
@pytest.mark.parametrize("client", [False, True])
def test_zlib_objects_exist_only_when_needed(client: bool, ours: bool, theirs: bool) -> None:
    server_flag, client_flag = (theirs, ours) if client else (ours, theirs)
    settings = Deflate(server_no_context_takeover=server_flag, client_no_context_takeover=client_flag)
    deflate = PerMessageDeflate(settings, client)
    assert not objects(deflate)
    deflate.compress(b"Hello")
    assert bool(objects(deflate)) is not ours
    deflate._compressor = None
    message = bytearray()
    deflate.decompress(bytes.fromhex("f2 48"), False, message, None)
    assert objects(deflate), "a message has begun"
    deflate.decompress(bytes.fromhex("cd c9 c9 07 00"), True, message, None)
    assert bool(objects(deflate)) is not theirs


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("client", [False, True])
def test_compressed_data_fits_the_negotiated_window(bits: int, client: bool) -> None:
    """Also 8 bits, for which zlib has no compressor."""
    ours = {"client_max_window_bits" if client else "server_max_window_bits": bits}
    deflate = PerMessageDeflate(Deflate(**ours), client)
    inflater = zlib.decompressobj(-bits)
    for message in (prose(20_000), prose(300) * 50, bytes(5000), os.urandom(200), b"x"):
        payload = deflate.compress(message) + b"\x00\x00\xff\xff"
        assert inflater.decompress(payload) == message


@pytest.mark.parametrize("client", [False, True])
def test_a_message_that_would_grow_is_left_uncompressed(client: bool) -> None:
    sender, receiver = PerMessageDeflate(Deflate(), client), PerMessageDeflate(Deflate(), not client)
    noise = os.urandom(10_000)
    assert inflate(receiver, sender.compress(prose(10_000))) == prose(10_000)
    assert sender.compress(noise) is None
    # The peer has not received the noise, so nothing may refer back to it.
    assert inflate(receiver, sender.compress(noise[-500:])) == noise[-500:]


def test_a_window_of_8_bits_is_compressed_too() -> None:
    deflate = PerMessageDeflate(Deflate(client_max_window_bits=8), client=True)
    assert len(deflate.compress(prose(10_000))) < 7_000
    assert len(deflate.compress(bytes(10_000))) < 100


@pytest.mark.parametrize("client", [False, True])
def test_a_peer_that_uses_more_than_its_window_is_refused(client: bool) -> None:
    theirs = {"server_max_window_bits" if client else "client_max_window_bits": 9}
    peer = zlib.compressobj(wbits=-15)
    far = os.urandom(5000)
    first, second = ((peer.compress(far) + peer.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2))
    for settings in (WIDE, Deflate(**theirs)):
        deflate = PerMessageDeflate(settings, client)
        assert inflate(deflate, first) == far
        if settings is WIDE:
            assert inflate(deflate, second) == far
    with pytest.raises(ProtocolError, match="corrupt"):
        inflate(deflate, second)


def test_a_peer_whose_zlib_uses_9_bits_for_8_is_understood() -> None:
    peer = zlib.compressobj(wbits=-9)
    payload = peer.compress(prose(20_000)) + peer.flush(zlib.Z_SYNC_FLUSH)
    server = PerMessageDeflate(Deflate(client_max_window_bits=8), client=False)
    assert inflate(server, payload[:-4]) == prose(20_000)


def test_the_settings_reach_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    compressobj = zlib.compressobj
    monkeypatch.setattr(zlib, "compressobj", lambda *args: calls.append(args) or compressobj(*args))
    PerMessageDeflate(Deflate(level=3, mem_level=7, server_max_window_bits=11), client=False).compress(b"x")
    PerMessageDeflate(Deflate(client_max_window_bits=8), client=True).compress(b"x")
    assert calls == [
        (3, zlib.DEFLATED, -11, 7, zlib.Z_DEFAULT_STRATEGY),
        (6, zlib.DEFLATED, -9, 5, zlib.Z_RLE),
    ]


MESSAGES = st.lists(
    st.binary(min_size=1, max_size=300) | st.sampled_from([prose(3000), bytes(5000)]), max_size=6
)
BITS = st.integers(8, 15)
SETTINGS = st.builds(
    Deflate,
    server_max_window_bits=st.none() | BITS,
    client_max_window_bits=BITS,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    level=st.integers(1, 9),
    mem_level=st.integers(1, 9),
)


@given(settings=SETTINGS, sent=MESSAGES, step=st.integers(1, 5000))
def test_messages_round_trip_in_any_pieces_and_both_directions(
    settings: Deflate, sent: list[bytes], step: int
) -> None:
    client, server = both(settings)
    for message in sent:
        for sender, receiver in ((client, server), (server, client)):
            payload = sender.compress(message)
            if payload is None:
                continue
            pieces = [payload[i : i + step] for i in range(0, len(payload), step)]
            assert inflate(receiver, *pieces, limit=len(message)) == message


@pytest.mark.parametrize("limit", [1, 100, 65535, 65536, 65537, 200_000])
@pytest.mark.parametrize("step", [1, 7, 10**6])
def test_output_stops_one_byte_above_the_limit(limit: int, step: int) -> None:
    client, server = both(WIDE)
    for size in (limit, limit + 1, limit + 50_000):
        payload = client.compress(bytes(size))
        message = bytearray()
        for start in range(0, len(payload), step):
            server.decompress(payload[start : start + step], start + step >= len(payload), message, limit)
        assert len(message) == min(size, limit + 1)
        client, server = both(WIDE)


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    peer = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(peer.compress(bytes(2**20)) for _ in range(64)) + peer.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 2**17
    limit = 2**20
    server = PerMessageDeflate(WIDE, client=False)
    message = bytearray()
    tracemalloc.start()
    try:
        server.decompress(bomb, True, message, limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(message) == limit + 1
    # The message while it grows, one step of output, and a copy of the bomb with its tail.
    assert peak < 1.25 * limit + 2**18 + len(bomb)


@pytest.mark.parametrize(
    "block",
    [
        bytes.fromhex("03 00"),  # empty, final
        bytes.fromhex("f3 48 cd c9 c9 07 00"),  # Hello, final
        bytes.fromhex("00 00 00 ff ff"),  # empty, not final
    ],
)
def test_a_message_of_many_tiny_blocks_takes_linear_time(block: bytes) -> None:
    def read(blocks: bytes) -> None:
        message = inflate(both(WIDE)[0], blocks + b"\0")
        assert message in (b"", b"Hello" * (len(blocks) // len(block)))

    # Copying the remaining data for each block made it quadratic.
    assert takes_linear_time(read, lambda count: block * count, 2**17)


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        (WIDE, "permessage-deflate; client_max_window_bits; server_max_window_bits=15"),
        # libsoup 3.2 answers every element, and nhooyr.io/websocket 1.8.7 refuses server_max_window_bits.
        (Deflate(), "permessage-deflate; client_max_window_bits"),
        (Deflate(client_max_window_bits=9), "permessage-deflate; client_max_window_bits"),
        (
            Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
        ),
        (
            Deflate(server_max_window_bits=8, server_no_context_takeover=True),
            "permessage-deflate; server_no_context_takeover; client_max_window_bits; server_max_window_bits=8",
        ),
    ],
)
def test_an_offer_contains_the_settings(settings: Deflate, value: str) -> None:
    assert offer(settings) == value
    parse_extensions([value])


def agreed(deflate: PerMessageDeflate) -> tuple[int, int, bool, bool]:
    """Our window, the peer's window; whether our context is kept, and the peer's."""
    return deflate._local_bits, deflate._peer_bits, deflate._keep_compressor, deflate._keep_inflater


@pytest.mark.parametrize(
    ("asked", "settings", "answer", "terms"),
    [
        # What Firefox offers, then Chrome and Safari.
        ("", Deflate(), "", (12, 15, True, True)),
        ("client_max_window_bits", Deflate(), "client_max_window_bits=12", (12, 12, True, True)),
        ("", Deflate(server_max_window_bits=9), "", (9, 15, True, True)),
        ("", WIDE, "", (15, 15, True, True)),
        ("client_max_window_bits", WIDE, "client_max_window_bits=15", (15, 15, True, True)),
        ("client_max_window_bits=10", WIDE, "client_max_window_bits=10", (15, 10, True, True)),
        ("client_max_window_bits=14", Deflate(), "client_max_window_bits=12", (12, 12, True, True)),
        ("server_max_window_bits=15", WIDE, "server_max_window_bits=15", (15, 15, True, True)),
        ("server_max_window_bits=10", Deflate(), "server_max_window_bits=10", (10, 15, True, True)),
        ("server_max_window_bits=14", Deflate(), "server_max_window_bits=12", (12, 15, True, True)),
        ('server_max_window_bits="8"', WIDE, "server_max_window_bits=8", (8, 15, True, True)),
        ("server_no_context_takeover", WIDE, "server_no_context_takeover", (15, 15, False, True)),
        ("client_no_context_takeover", WIDE, "client_no_context_takeover", (15, 15, True, False)),
        ("", Deflate(server_no_context_takeover=True), "", (12, 15, False, True)),
        # It binds the client, so the response must contain it.
        ("", Deflate(client_no_context_takeover=True), "client_no_context_takeover", (12, 15, True, False)),
        (
            "client_max_window_bits=9; server_no_context_takeover; server_max_window_bits=9; client_no_context_takeover",
            Deflate(),
            "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=9",
            (9, 9, False, False),
        ),
    ],
)
def test_a_server_answers_an_offer(asked: str, settings: Deflate, answer: str, terms: tuple) -> None:
    value = "; ".join(filter(None, ["permessage-deflate", asked]))
    found = accept(parse_extensions([value]), settings)
    assert found is not None
    assert found[0] == "; ".join(filter(None, ["permessage-deflate", answer]))
    assert agreed(found[1]) == terms


WRONG_PARAMETERS = [
    "foo",
    "foo=1",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    "server_no_context_takeover; server_no_context_takeover",
    "client_no_context_takeover; client_no_context_takeover",
    "server_max_window_bits=10; server_max_window_bits=10",
    "client_max_window_bits=10; client_max_window_bits=11",
    "server_max_window_bits",
    *(
        f"{side}_max_window_bits={value}"
        for side in ("server", "client")
        for value in ("7", "16", "08", "+9", "1e1", "x", "-8", "100000000000000000000")
    ),
    "Server_no_context_takeover",
]


@pytest.mark.parametrize("asked", [*WRONG_PARAMETERS, "client_max_window_bits; client_max_window_bits"])
def test_an_invalid_offer_is_declined_and_the_next_one_accepted(asked: str) -> None:
    wrong = f"permessage-deflate; {asked}"
    assert accept(parse_extensions([wrong]), WIDE) is None
    found = accept(parse_extensions([f"{wrong}, permessage-deflate; server_max_window_bits=9"]), WIDE)
    assert found is not None
    assert found[0] == "permessage-deflate; server_max_window_bits=9"


def test_other_extensions_are_ignored() -> None:
    assert accept([], WIDE) is None
    assert accept(parse_extensions(["x-webkit-deflate-frame, permessage-bzip2"]), WIDE) is None
    found = accept(parse_extensions(["x-webkit-deflate-frame", "permessage-deflate"]), WIDE)
    assert found is not None
    assert found[0] == "permessage-deflate"


@pytest.mark.parametrize(
    ("answer", "settings", "terms"),
    [
        # gorilla sends this to any offer.
        ("server_no_context_takeover; client_no_context_takeover", Deflate(), (12, 15, False, False)),
        ("", Deflate(), (12, 15, True, True)),
        ("", WIDE, (15, 15, True, True)),
        ("server_max_window_bits=12", Deflate(), (12, 12, True, True)),
        ("server_max_window_bits=8; client_max_window_bits=8", Deflate(), (8, 8, True, True)),
        ("server_max_window_bits=13", Deflate(), (12, 13, True, True)),
        ("server_max_window_bits=10", WIDE, (15, 10, True, True)),
        ("client_max_window_bits=15", Deflate(), (12, 15, True, True)),
        ("client_max_window_bits=9", WIDE, (9, 15, True, True)),
        ("client_no_context_takeover", WIDE, (15, 15, False, True)),
        ("", Deflate(client_no_context_takeover=True), (12, 15, False, True)),
        ("server_no_context_takeover", Deflate(server_no_context_takeover=True), (12, 15, True, False)),
    ],
)
def test_a_client_accepts_a_response_that_fits_its_offer(
    answer: str, settings: Deflate, terms: tuple
) -> None:
    value = "; ".join(filter(None, ["permessage-deflate", answer]))
    deflate = confirm(parse_extensions([value]), settings)
    assert deflate is not None
    assert agreed(deflate) == terms


def test_no_extension_in_the_response_is_no_compression() -> None:
    assert confirm([], Deflate()) is None


@pytest.mark.parametrize("answer", [*WRONG_PARAMETERS, "client_max_window_bits"])
def test_a_client_refuses_a_response_with_invalid_parameters(answer: str) -> None:
    with pytest.raises(InvalidHandshake, match="server's response to permessage-deflate has "):
        confirm(parse_extensions([f"permessage-deflate; {answer}"]), WIDE)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("permessage-bzip2", "not offered: 'permessage-bzip2'"),
        ("x" * 5000, r"not offered: 'x{40}'$"),
        ("permessage-deflate, permessage-deflate", "more than one"),
        ("permessage-deflate, foo", "more than one"),
        ("permessage-deflate", "lacks server_no_context_takeover"),
    ],
)
def test_a_client_refuses_a_response_that_does_not_fit_its_offer(answer: str, words: str) -> None:
    with pytest.raises(InvalidHandshake, match=words):
        confirm(parse_extensions([answer]), Deflate(server_no_context_takeover=True))


@given(client=SETTINGS, server=SETTINGS, sent=MESSAGES)
def test_any_two_settings_negotiate_and_interoperate(
    client: Deflate, server: Deflate, sent: list[bytes]
) -> None:
    found = accept(parse_extensions([offer(client)]), server)
    assert found is not None
    answer, at_server = found
    at_client = confirm(parse_extensions([answer]), client)
    assert at_client is not None
    for sender, receiver in ((agreed(at_client), agreed(at_server)), (agreed(at_server), agreed(at_client))):
        # The parameters that the receiver was not sent are smaller than it expects.
        assert sender[0] <= receiver[1]
        assert sender[2] <= receiver[3]
    assert agreed(at_client)[0] == min(client.client_max_window_bits, server.client_max_window_bits)
    assert agreed(at_server)[0] == min(
        client.server_max_window_bits or 15, 12 if (own := server.server_max_window_bits) is None else own
    )
    for message in sent:
        assert inflate(at_server, at_client.compress(message)) == message
        assert inflate(at_client, at_server.compress(message)) == message
