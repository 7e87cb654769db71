from __future__ import annotations

import array
import os
import tracemalloc
import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.ending import Close
from endwell.errors import InvalidData, MessageTooBig, PeerError, PolicyViolation, ProtocolError
from endwell.options import Deflate
from endwell.wire.codec import Codec, Event, Ping, Pong, check_message
from endwell.wire.deflate import PerMessageDeflate
from tests.linear import takes_linear_time
from tests.wire.peer import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, frame, receive

NO_LIMIT = None
RSV1 = 4


def server(max_size: int | None = 2**20) -> Codec:
    return Codec(client=False, max_size=max_size)


def compressing(client: bool, settings: Deflate | None = None, max_size: int | None = 2**20) -> Codec:
    return Codec(client, max_size, PerMessageDeflate(settings or Deflate(), client))


def bytes_held(codec: Codec) -> int:
    """The bytes of received data that the codec keeps."""
    return len(codec._buffer) + len(codec._partial) + (0 if codec.room is None else codec.room_fill)


def resident() -> int:
    """The memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def compress(data: bytes) -> bytes:
    """A compressed message, as a peer without context takeover sends it."""
    peer = zlib.compressobj(wbits=-12)
    return (peer.compress(data) + peer.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_message_in_one_frame_is_received(size: int, client: bool, kind: type) -> None:
    text, data = "x" * size, os.urandom(size)
    key = None if client else b"\1\2\3\4"
    events: list[Event] = []
    codec = Codec(client)
    codec.receive(kind(frame(TEXT, text.encode(), key=key) + frame(BINARY, data, key=key)), events)
    assert events == [text, data]
    assert [type(event) for event in events] == [str, bytes]


def test_a_received_message_is_independent_of_the_read_buffer() -> None:
    buffer = bytearray(frame(BINARY, b"Hello") + frame(BINARY, b"partial"))
    events: list[Event] = []
    codec = server()
    codec.receive(memoryview(buffer)[:15], events)
    rest = bytes(buffer[15:])
    buffer[:] = bytes(len(buffer))
    codec.receive(rest, events)
    assert events == [b"Hello", b"partial"]


@pytest.mark.parametrize(
    "octets",
    [
        "01 03 48 65 6c  80 02 6c 6f",  # RFC 6455 §5.7, fragmented
        "81 05 48 65 6c 6c 6f",
    ],
)
def test_a_client_receives_the_examples_of_the_rfc(octets: str) -> None:
    assert receive(Codec(client=True), bytes.fromhex(octets)) == (["Hello"], None)


@pytest.mark.parametrize(
    ("octets", "event"),
    [("81 85 37fa213d 7f9f4d5158", "Hello"), ("8a 85 37fa213d 7f9f4d5158", Pong(b"Hello"))],
)
def test_a_server_receives_the_examples_of_the_rfc(octets: str, event: Event) -> None:
    assert receive(server(), bytes.fromhex(octets)) == ([event], None)


@pytest.mark.parametrize(
    "octets",
    [
        "c1 07 f2 48 cd c9 c9 07 00",  # RFC 7692 §7.2.3.1
        "41 03 f2 48 cd  80 04 c9 c9 07 00",
        "c1 0b 00 05 00 fa ff 48 65 6c 6c 6f 00",  # §7.2.3.3
        "c1 08 f3 48 cd c9 c9 07 00 00",  # §7.2.3.4
        "c1 0d f2 48 05 00 00 00 ff ff ca c9 c9 07 00",  # §7.2.3.5
    ],
)
def test_the_compressed_examples_of_the_rfc_are_received(octets: str) -> None:
    assert receive(compressing(client=True), bytes.fromhex(octets)) == (["Hello"], None)


def test_the_shared_window_example_of_the_rfc_is_received() -> None:
    reads = bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00"), bytes.fromhex("c1 05 f2 00 11 00 00")
    assert receive(compressing(client=True), *reads) == (["Hello", "Hello"], None)


def test_events_are_in_the_order_of_the_wire() -> None:
    data = (
        frame(PING, b"1")
        + frame(TEXT, b"frag", fin=False)
        + frame(PONG, b"2")
        + frame(CONTINUATION, b"ment", fin=False)
        + frame(PING)
        + frame(CONTINUATION, b"ed")
        + frame(BINARY, b"whole")
        + frame(CLOSE, b"\x03\xe8bye")
    )
    assert receive(server(), data) == (
        [Ping(b"1"), Pong(b"2"), Ping(b""), "fragmented", b"whole", Close(1000, "bye")],
        None,
    )


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_empty_fragments_are_valid(opcode: int) -> None:
    data = frame(opcode, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION)
    assert receive(server(), data, frame(TEXT, b"next")) == (["" if opcode == TEXT else b"", "next"], None)


def test_control_frames_may_have_125_bytes() -> None:
    payload = bytes(125)
    assert receive(server(), frame(PING, payload) + frame(PONG, payload)) == (
        [Ping(payload), Pong(payload)],
        None,
    )


@pytest.mark.parametrize(
    "after", [frame(TEXT, b"late"), b"\xff\xff\xff", frame(CLOSE), frame(PING)[:3], frame(CONTINUATION)]
)
@pytest.mark.parametrize("apart", [False, True])
def test_data_after_a_close_is_ignored(after: bytes, apart: bool) -> None:
    close = frame(CLOSE, b"\x03\xe9")
    reads = (close, after) if apart else (close + after,)
    codec = server()
    assert receive(codec, *reads, frame(TEXT, b"later")) == ([Close(1001, "")], None)
    assert not bytes_held(codec)


def test_a_close_may_interrupt_a_fragmented_message() -> None:
    codec = server()
    assert receive(codec, frame(TEXT, b"unfinished", fin=False) + frame(CLOSE)) == ([Close()], None)
    assert not bytes_held(codec), "and what there was of it is let go"


WRONG = {
    "an unmasked frame": frame(TEXT, b"x", key=None),
    "an unmasked control frame": frame(PING, key=None),
    "an unmasked long frame": frame(BINARY, bytes(200), key=None),
    "RSV1 without compression": frame(TEXT, b"x", rsv=4),
    "RSV2": frame(TEXT, b"x", rsv=2),
    "RSV3": frame(BINARY, b"x", rsv=1),
    "RSV1 on a ping": frame(PING, rsv=4),
    "RSV1 on a close": frame(CLOSE, rsv=4),
    **{f"opcode {opcode}": frame(opcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a fragmented ping": frame(PING, fin=False),
    "a fragmented close": frame(CLOSE, fin=False),
    "a ping of 126 bytes": frame(PING, bytes(126)),
    "a close of 126 bytes": frame(CLOSE, b"\x03\xe8" + b"x" * 124),
    "a length of 125 in two octets": frame(TEXT, b"x" * 125, width=2),
    "a length of 0 in two octets": frame(TEXT, width=2),
    "a length of 125 in eight octets": frame(TEXT, b"x" * 125, width=8),
    "a length of 65535 in eight octets": frame(BINARY, bytes(65535), width=8),
    "a ping's length in two octets": frame(PING, b"x", width=2),
    "a length with its top bit set": b"\x82\xff\x80" + bytes(7) + b"keys",
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "a continuation of nothing, unfinished": frame(CONTINUATION, b"x", fin=False),
    "a close of one byte": frame(CLOSE, b"\x03"),
    "a close with code 1005": frame(CLOSE, b"\x03\xed"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_an_invalid_frame_fails_after_the_events_before_it(wrong: bytes) -> None:
    before = frame(TEXT, b"before") + frame(PING, b"p")
    codec = server()
    events, error = receive(codec, before + wrong + frame(TEXT, b"after"), frame(TEXT, b"later"))
    assert events == ["before", Ping(b"p")]
    assert type(error) is ProtocolError


def test_a_client_refuses_masked_frames() -> None:
    for masked in (frame(TEXT, b"x"), frame(PING), frame(CLOSE)):
        assert type(receive(Codec(client=True), masked)[1]) is ProtocolError


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("fin", [False, True])
def test_a_new_message_inside_a_fragmented_one_is_a_protocol_error(opcode: int, fin: bool) -> None:
    data = frame(TEXT, b"x", fin=False) + frame(opcode, b"y", fin=fin)
    events, error = receive(server(), data)
    assert events == []
    assert type(error) is ProtocolError
    assert "before the previous one has ended" in str(error)


def test_a_continuation_after_the_last_fragment_is_a_protocol_error() -> None:
    data = frame(TEXT, b"x", fin=False) + frame(CONTINUATION) + frame(CONTINUATION)
    events, error = receive(server(), data)
    assert events == ["x"]
    assert type(error) is ProtocolError


@pytest.mark.parametrize("compressed", [False, True])
def test_rsv1_on_a_continuation_is_a_protocol_error(compressed: bool) -> None:
    first = frame(TEXT, b"\xf2", fin=False, rsv=RSV1 if compressed else 0)
    events, error = receive(compressing(client=False), first + frame(CONTINUATION, b"", rsv=RSV1))
    assert events == []
    assert type(error) is ProtocolError


# UTF-8

# Autobahn 6.*: each with the position of the first byte that cannot be in any UTF-8.
NOT_UTF8 = [
    (b"\x80", 0),
    (b"\xbf", 0),
    (b"\xc0", 0),
    (b"\xc1\xbf", 0),
    (b"\xf5", 0),
    (b"\xff", 0),
    (b"\xc3\x28", 1),
    (b"\xe0\x80", 1),
    (b"\xe0\x9f", 1),
    (b"\xe2\x82\x28", 2),
    (b"\xed\xa0", 1),
    (b"\xed\xbf", 1),
    (b"\xf0\x80", 1),
    (b"\xf0\x8f", 1),
    (b"\xf0\x90\x28", 2),
    (b"\xf0\x90\x8c\x28", 3),
    (b"\xf4\x90", 1),
]


@pytest.mark.parametrize(("wrong", "position"), NOT_UTF8)
@pytest.mark.parametrize("good", ["", "κόσμε", "x" * 300])
def test_text_fails_at_the_first_invalid_byte(wrong: bytes, position: int, good: str) -> None:
    """Inside an incomplete frame: Autobahn 6.4.* call nothing else strict."""
    start = len(good.encode())
    whole = frame(TEXT, good.encode() + wrong + b"and much more" * 100)
    # Masking does not change the length: the payload starts where the header ends.
    bad = len(whole) - start - len(wrong) - 1300 + start + position
    codec = server()
    assert receive(codec, *(whole[i : i + 1] for i in range(bad))) == ([], None)
    _, error = receive(codec, whole[bad : bad + 1])
    assert type(error) is InvalidData
    assert f"at byte {start}" in str(error)


@pytest.mark.parametrize(("wrong", "position"), NOT_UTF8)
@pytest.mark.parametrize("good", ["", "κόσμε", "x" * 300])
def test_invalid_utf8_is_refused_in_one_frame_and_in_fragments(
    wrong: bytes, position: int, good: str
) -> None:
    text = good.encode() + wrong
    end = len(text) - len(wrong) + position
    for data in (
        frame(TEXT, text),
        frame(TEXT, text[:end], fin=False) + frame(CONTINUATION, text[end:]),
        frame(TEXT, text[:end], fin=False) + frame(CONTINUATION, text[end:], fin=False),
        frame(TEXT, fin=False) + frame(CONTINUATION, text, fin=False),
    ):
        events, error = receive(server(), data)
        assert events == []
        assert type(error) is InvalidData
        assert str(error) == f"text is not UTF-8 at byte {len(good.encode())}"


def test_utf8_validation_restarts_with_each_text() -> None:
    good = frame(TEXT, b"good text", fin=False) + frame(CONTINUATION, b" and more")
    events, error = receive(server(), good + frame(TEXT, b"\xff", fin=False))
    assert events == ["good text and more"]
    assert str(error) == "text is not UTF-8 at byte 0"


@pytest.mark.parametrize("cut", [b"\xc3", b"\xe2\x82", b"\xf0\x90\x8c"])
def test_a_text_must_not_end_inside_a_character(cut: bytes) -> None:
    for data in (frame(TEXT, b"ok" + cut), frame(TEXT, b"ok" + cut, fin=False) + frame(CONTINUATION)):
        events, error = receive(server(), data)
        assert events == []
        assert str(error) == "text is not UTF-8 at byte 2"


@given(text=st.text(max_size=20), cuts=st.lists(st.integers(0, 80), max_size=6))
def test_a_fragment_may_end_inside_a_character(text: str, cuts: list[int]) -> None:
    octets = text.encode()
    edges = [0, *sorted(cuts), len(octets)]
    parts = [octets[a:b] for a, b in pairwise(edges)]
    data = frame(TEXT, parts[0], fin=len(parts) == 1)
    for i, part in enumerate(parts[1:], 2):
        data += frame(CONTINUATION, part, fin=i == len(parts))
    assert receive(server(), data) == ([text], None)


def test_binary_messages_may_contain_any_octets() -> None:
    data = bytes(range(256))
    fragments = frame(BINARY, data, fin=False) + frame(CONTINUATION, data)
    assert receive(server(), frame(BINARY, data) + fragments) == ([data, data * 2], None)


def test_compressed_text_fails_at_its_first_invalid_byte() -> None:
    payload = compress(b"ok\xff") + b"\x00\x00\xff\xff" + bytes(100)
    events, error = receive(compressing(client=False), frame(TEXT, payload, rsv=RSV1)[:-100])
    assert str(error) == "text is not UTF-8 at byte 2"
    assert type(error) is InvalidData
    assert events == []


# max_size


@pytest.mark.parametrize("size", [1, 5, 124, 125, 126, 1000, 65535, 65536])
def test_a_message_may_have_at_most_max_size_bytes(size: int) -> None:
    for max_size, fits in ((size, True), (size - 1, False)):
        if not max_size:
            continue
        for data in (
            frame(BINARY, bytes(size)),
            frame(BINARY, bytes(size - 1), fin=False) + frame(CONTINUATION, b"\0"),
            frame(BINARY, fin=False) + frame(CONTINUATION, bytes(size)),
            frame(BINARY, compress(bytes(size)), rsv=RSV1),
            frame(TEXT, compress(b"x" * size), rsv=RSV1),
        ):
            events, error = receive(compressing(client=False, max_size=max_size), data)
            assert len(events) == fits
            assert (error is None) is fits
            assert fits or type(error) is MessageTooBig


def test_a_too_big_message_is_refused_at_its_header() -> None:
    for max_size in (10, 125, 126, 65535, 2**20):
        head = frame(BINARY, bytes(max_size + 1))[: -max_size - 1]
        _, error = receive(server(max_size), head)
        assert type(error) is MessageTooBig
        assert str(max_size) in str(error)
    _, error = receive(server(), b"\x82\xff\x7f" + b"\xff" * 7 + b"keys")
    assert type(error) is MessageTooBig


def test_too_big_fragments_are_refused_at_the_header_that_exceeds_max_size() -> None:
    codec = server(100)
    assert receive(codec, frame(BINARY, bytes(60), fin=False)) == ([], None)
    assert type(receive(codec, frame(CONTINUATION, bytes(41))[:6])[1]) is MessageTooBig
    assert not bytes_held(codec)


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("length", [2**63 - 1, 2**63 - 2, 2**62, 2**32])
def test_the_longest_length_after_a_fragment_does_not_overflow(client: bool, length: int) -> None:
    # As a sum in a compiled integer it was negative.
    key = None if client else KEY
    codec = Codec(client, max_size=100)
    data = frame(BINARY, b"x", fin=False, key=key) + frame(CONTINUATION, fin=False, key=key, width=8)
    at = len(data) - (8 if client else 12)
    data = data[:at] + length.to_bytes(8, "big") + data[at + 8 :]
    events, error = receive(codec, data, bytes(1000))
    assert events == []
    assert type(error) is MessageTooBig
    assert not bytes_held(codec)


def test_without_max_size_a_length_allocates_nothing() -> None:
    codec = server(NO_LIMIT)
    tracemalloc.start()
    try:
        assert receive(codec, b"\x82\xff\x7f" + b"\xff" * 7 + b"keys" + bytes(1000)) == ([], None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000
    assert receive(server(NO_LIMIT), frame(BINARY, bytes(2**20 + 1))) == ([bytes(2**20 + 1)], None)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_compression_bomb_is_refused_with_bounded_memory(opcode: int) -> None:
    peer = zlib.compressobj(9, wbits=-12)
    bomb = b"".join(peer.compress(bytes(2**20)) for _ in range(64)) + peer.flush(zlib.Z_SYNC_FLUSH)
    data = frame(opcode, bomb, rsv=RSV1)
    codec = compressing(client=False)
    tracemalloc.start()
    try:
        events, error = receive(codec, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert events == []
    assert type(error) is MessageTooBig
    # The message, and once more as text while it is checked.
    assert peak < 2.5 * 2**20 + 6 * len(data)
    assert not bytes_held(codec), "and then let go"


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_bombs_in_one_read_are_inflated_one_at_a_time(opcode: int) -> None:
    bomb = frame(opcode, compress(bytes(2**20)), rsv=RSV1)
    whole, ping = bomb * 100 + frame(CLOSE), frame(PING, b"Hello")
    codec = compressing(client=False)
    read = bytearray(whole)
    tracemalloc.start()
    try:
        counts = []
        while not counts or codec.has_unparsed:
            events: list[Event] = []
            codec.feed(read, len(read) if not counts else 0, events)
            counts.append(len(events))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counts == [1] * 100 + [0]
    assert codec.controls == [Close()]
    assert peak < 3 * 2**20 + 3 * len(read)
    # Data that arrives while it is paused waits behind the rest.
    codec, events = compressing(client=False), []
    codec.feed(bytearray(bomb * 2), 2 * len(bomb), events)
    assert codec.has_unparsed
    codec.receive(ping, events)
    assert (len(events), events[-1], codec.has_unparsed) == (3, Ping(b"Hello"), False)


def test_empty_final_blocks_are_inflated_in_steps_without_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # RFC 7692 §7.2.3.5 has such a block of two bytes; zlib is called, and restarted, for each.
    begun = 0
    real = zlib.decompressobj

    def decompressobj(*arguments: int) -> object:
        nonlocal begun
        begun += 1
        return real(*arguments)

    monkeypatch.setattr(zlib, "decompressobj", decompressobj)
    blocks = 2**15
    payload = b"\x03\x00" * blocks + compress(b"Hello")
    read = bytearray(frame(TEXT, payload, rsv=RSV1) + frame(PING, b"behind it"))
    codec = compressing(client=False)
    events: list[Event] = []
    codec.feed(read, len(read), events)
    most, before = begun, begun
    while codec.has_unparsed:
        assert codec.has_partial_message()
        codec.feed(bytearray(), 0, events)
        most, before = max(most, begun - before), begun
    assert begun >= blocks
    assert most <= 2**18 // 64 + 2**12 // 2
    assert (events, codec.controls) == (["Hello"], [Ping(b"behind it")])


@pytest.mark.parametrize(
    ("unit", "event"),
    [
        (frame(PING), Ping(b"")),
        (frame(BINARY, compress(b""), rsv=RSV1), b""),
        (frame(CONTINUATION, b"x", fin=False), None),
        (frame(TEXT, b"x"), "x"),
    ],
    ids=["pings", "compressed nothing", "fragments", "messages"],
)
def test_frames_are_parsed_in_batches_without_loss(unit: bytes, event: Event) -> None:
    count = 20_000
    codec = compressing(client=False)
    if event is None:
        read = bytearray(frame(BINARY, fin=False) + unit * count + frame(CONTINUATION))
        expected: list[Event] = [b"x" * count]
    else:
        read, expected = bytearray(unit * count), [event] * count
    data, most = read, 0
    came: list[Event] = []
    while data or codec.has_unparsed:
        before = len(codec._partial)
        codec.feed(data, len(data), came)
        most = max(most, len(data) + before - len(codec._partial))
        data = bytearray()
    assert most <= (2**18 // 64 + 1) * len(unit)
    assert came + codec.controls == expected


def test_a_compressed_frame_may_be_longer_than_its_content() -> None:
    payload = b"\x00\x00\x00\xff\xff" * 1000 + compress(b"Hello")
    assert receive(compressing(client=False, max_size=5), frame(TEXT, payload, rsv=RSV1)) == (["Hello"], None)


def test_corrupt_compressed_data_is_a_protocol_error() -> None:
    events, error = receive(compressing(client=False), frame(BINARY, b"\xff" * 20, rsv=RSV1))
    assert events == []
    assert type(error) is ProtocolError


# Fragments


@pytest.mark.parametrize("compressed", [False, True])
def test_70_000_fragments_of_4_mib_are_one_message(compressed: bool) -> None:
    message = os.urandom(70_000 * 60)
    payload = compress(message) if compressed else message
    step = len(payload) // 70_000
    parts = [payload[i : i + step] for i in range(0, len(payload), step)]
    data = frame(BINARY, key=None, fin=False, rsv=RSV1 if compressed else 0)
    data += b"".join(frame(CONTINUATION, part, key=None, fin=False) for part in parts)
    data += frame(CONTINUATION, key=None)
    reads = (data[start : start + 2**18] for start in range(0, len(data), 2**18))
    assert receive(compressing(client=True, max_size=2**23), *reads) == ([message], None)


def flood(part: bytes, rsv: int = 0, max_size: int | None = 2**20) -> tuple[int, PeerError, int]:
    """Send fragments until the error: the number sent, the error, and the bytes held until then."""
    codec = compressing(client=True, max_size=max_size)
    assert receive(codec, frame(BINARY, part, key=None, fin=False, rsv=rsv)) == ([], None)
    thousand = frame(CONTINUATION, part, key=None, fin=False) * 1000
    for count in range(0, 1_000_000, 1000):
        kept = bytes_held(codec)
        _, error = receive(codec, thousand)
        if error is not None:
            return count, error, kept
    pytest.fail("an endless message")


@pytest.mark.parametrize(
    ("part", "rsv", "max_size"),
    [
        (b"", 0, 2**20),
        (b"", 0, NO_LIMIT),
        (b"x", 0, 2**20),
        (b"x", 0, NO_LIMIT),
        (b"", RSV1, 2**20),
        (b"\x00\x00\x00\xff\xff", RSV1, NO_LIMIT),
        (b"\x03\x00", RSV1, 2**20),
    ],
)
def test_endless_empty_fragments_are_a_policy_violation(part: bytes, rsv: int, max_size: int | None) -> None:
    count, error, kept = flood(part, rsv, max_size)
    assert type(error) is PolicyViolation
    assert 100_000 < count < 200_000
    assert kept < 200_000


def test_fragments_with_bytes_are_limited_by_max_size_only() -> None:
    count, error, _ = flood(bytes(24), max_size=2**22)
    assert type(error) is MessageTooBig
    assert count > 2**17


# Splits


@st.composite
def wires(draw: st.DrawFn) -> bytes:
    """What a peer could send: mostly valid, sometimes not."""
    payloads = st.binary(max_size=140) | st.text(max_size=30).map(str.encode) | st.just(b"x" * 300)
    bits = st.sampled_from([0] * 12 + [RSV1])
    data = b""
    for _ in range(draw(st.integers(0, 8))):
        what = draw(st.integers(0, 11))
        payload = draw(payloads)
        if what < 3:
            data += frame(draw(st.sampled_from([TEXT, BINARY])), payload, rsv=draw(bits))
        elif what < 6:
            opcode, *rest = draw(
                st.sampled_from([[TEXT, CONTINUATION], [BINARY, CONTINUATION, CONTINUATION]])
            )
            data += frame(opcode, payload, fin=False)
            for i, follow in enumerate(rest, 1):
                data += frame(follow, draw(payloads), fin=i == len(rest))
                data += draw(st.sampled_from([b"", frame(PING, b"in between")]))
        elif what < 8:
            data += frame(draw(st.sampled_from([PING, PONG])), payload[:125])
        elif what < 10:
            opcode = draw(st.sampled_from([TEXT, BINARY]))
            data += frame(opcode, compress(payload), rsv=RSV1)
        elif what < 11:
            data += frame(
                CLOSE, draw(st.sampled_from([b"", b"\x03\xe8", b"\x03\xe9bye", b"\x03", b"\x00\x00"]))
            )
        else:
            data += draw(st.sampled_from(list(WRONG.values())) | st.binary(max_size=20))
    return data


@given(data=wires(), cuts=st.lists(st.integers(0, 1500), max_size=8))
def test_any_split_of_the_bytes_gives_the_same_events_and_error(data: bytes, cuts: list[int]) -> None:
    def outcome(*reads: bytes, into_room: bool = False) -> tuple[list[Event], str]:
        events, error = receive(compressing(client=False, max_size=400), *reads, into_room=into_room)
        return events, repr(error)

    events, error = outcome(data)
    errors = {error}
    if "corrupt" in error:
        # zlib does not return the output of a call that fails. If the DEFLATE data is corrupt and the text
        # before that is not UTF-8, the split decides which error is raised.
        errors |= {f"InvalidData('text is not UTF-8 at byte {position}')" for position in range(400)}
    edges = [0, *sorted(cuts), len(data)]
    for reads in (
        [data[a:b] for a, b in pairwise(edges)],
        [data[i : i + 1] for i in range(len(data))],
    ):
        for into_room in (False, True):
            split = outcome(*reads, into_room=into_room)
            assert split[0] == events
            assert split[1] in errors


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_an_invalid_frame_gives_the_same_error_byte_by_byte(data: bytes) -> None:
    whole = receive(server(), data)
    split = receive(server(), *(data[i : i + 1] for i in range(len(data))))
    assert repr(split) == repr(whole)


def test_only_incomplete_data_is_kept() -> None:
    codec = server()
    for data, most in ((frame(PING, bytes(125)), 130), (frame(BINARY, bytes(70_000)), 69_999)):
        for i in range(len(data)):
            receive(codec, data[i : i + 1])
            assert bytes_held(codec) <= min(i + 1, most)
        assert not bytes_held(codec)


@pytest.mark.parametrize("max_size", [2**20, NO_LIMIT])
def test_an_announced_length_allocates_no_memory(max_size: int | None) -> None:
    head = frame(BINARY, bytes(2**20))[:1000]
    before = resident()
    codecs = [server(max_size) for _ in range(300)]
    for codec in codecs:
        assert receive(codec, head) == ([], None)
    assert resident() - before < 30 * 2**20


def test_a_long_message_byte_by_byte_takes_linear_time() -> None:
    def read(text: str) -> None:
        codec, events = server(), list[Event]()
        for octet in frame(TEXT, text.encode()):
            codec.receive(bytes((octet,)), events)
        assert events == [text]

    assert takes_linear_time(read, lambda size: "ü" * size, 60_000)


# Sending


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("tschüß", frame(TEXT, "tschüß".encode(), key=None)),
        ("", frame(TEXT, key=None)),
        (b"\0\xff", frame(BINARY, b"\0\xff", key=None)),
        (bytearray(b"\0\xff"), frame(BINARY, b"\0\xff", key=None)),
        (memoryview(b"\0\xff"), frame(BINARY, b"\0\xff", key=None)),
        (memoryview(b""), frame(BINARY, key=None)),
        (memoryview(b"abcdef")[::2], frame(BINARY, b"ace", key=None)),
        (memoryview(array.array("H", [1, 2])), frame(BINARY, array.array("H", [1, 2]).tobytes(), key=None)),
        (memoryview(b"abcd").cast("B", (2, 2)), frame(BINARY, b"abcd", key=None)),
        (memoryview(b"ab").cast("c"), frame(BINARY, b"ab", key=None)),
        (array.array("H", [1, 2]), frame(BINARY, array.array("H", [1, 2]).tobytes(), key=None)),
        (array.array("B"), frame(BINARY, key=None)),
    ],
)
def test_a_message_is_one_frame(message: object, expected: bytes) -> None:
    assert server().message(message) == expected


@pytest.mark.parametrize("message", [None, 1, ["x"], object()])
def test_a_message_of_another_type_is_named(message: object) -> None:
    with pytest.raises(TypeError, match=f"^message must be .*, not {type(message).__name__}$"):
        server().message(message)


def test_a_lone_surrogate_raises_without_side_effects() -> None:
    sender, receiver = compressing(client=True, settings=Deflate(min_size=1)), compressing(client=False)
    first = sender.message("Hello")
    with pytest.raises(ValueError, match=r"^message contains a lone surrogate"):
        sender.message("Hello \ud800")
    assert receive(receiver, first + sender.message("Hello again")) == (["Hello", "Hello again"], None)


@pytest.mark.parametrize("method", ["ping", "pong"])
def test_control_frames_are_built_and_limited_to_125_bytes(method: str) -> None:
    opcode = {"ping": PING, "pong": PONG}[method]
    build = getattr(server(), method)
    for payload in (b"", b"x", bytes(125), bytearray(b"x"), memoryview(b"abc")[::2]):
        assert build(payload) == frame(opcode, bytes(payload), key=None)
    with pytest.raises(ValueError, match=r"^payload must be at most 125 bytes, not 126"):
        build(bytes(126))
    with pytest.raises(TypeError, match=r"^payload must be bytes or bytes-like, not str"):
        build("x")


def test_closes_are_built() -> None:
    assert server().close(Close(None)) == frame(CLOSE, key=None)
    assert server().close(Close(1011)) == frame(CLOSE, b"\x03\xf3", key=None)
    assert server().close(Close(1002, "no")) == frame(CLOSE, b"\x03\xeano", key=None)
    with pytest.raises(ValueError, match="code"):
        server().close(Close(1006))


def test_a_clients_frames_are_masked() -> None:
    client = Codec(client=True)
    data = client.message("text") + client.message(b"data") + client.ping(b"1") + client.pong(b"2")
    assert receive(server(), data + client.close(Close(1000, "bye"))) == (
        ["text", b"data", Ping(b"1"), Pong(b"2"), Close(1000, "bye")],
        None,
    )


def test_only_messages_of_min_size_are_compressed() -> None:
    codec = compressing(client=False, settings=Deflate(min_size=10))
    assert codec.message("x" * 9) == frame(TEXT, b"x" * 9, key=None)
    assert codec.message("x" * 10)[0] == 0xC1
    assert codec.message(b"x" * 10)[0] == 0xC2
    assert codec.message("ü" * 5)[0] == 0xC1, "in bytes"
    assert codec.ping(bytes(100)) == frame(PING, bytes(100), key=None)


def test_a_message_that_compression_would_enlarge_is_sent_uncompressed() -> None:
    sender, receiver = compressing(client=False), compressing(client=True)
    noise = os.urandom(2**20)
    sent = sender.message(noise)
    assert (sent[0], len(sent)) == (0x82, 10 + 2**20)
    assert receive(receiver, sent + sender.message("Hello" * 10)) == ([noise, "Hello" * 10], None)


FRESH = Deflate(server_no_context_takeover=True)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (server(), server()),
        (server(), server(max_size=1)),
        (compressing(False, FRESH), compressing(False, FRESH)),
        (compressing(False, FRESH), compressing(False, replace(FRESH, client_max_window_bits=8))),
    ],
)
def test_servers_with_the_same_parameters_frame_messages_alike(one: Codec, two: Codec) -> None:
    assert one.share_key == two.share_key is not None
    for text in ("Hello" * 100, "short", "Hello" * 100):
        assert one.message(text) == two.message(text)


@pytest.mark.parametrize(
    "other",
    [
        server(),
        compressing(False, replace(FRESH, server_max_window_bits=9)),
        compressing(False, replace(FRESH, level=1)),
        compressing(False, replace(FRESH, mem_level=1)),
        compressing(False, replace(FRESH, min_size=1000)),
    ],
)
def test_servers_with_other_parameters_frame_messages_differently(other: Codec) -> None:
    assert compressing(False, FRESH).share_key != other.share_key is not None


@pytest.mark.parametrize(
    "codec",
    [
        compressing(False),
        Codec(client=True),
        compressing(True, Deflate(client_no_context_takeover=True)),
    ],
)
def test_masking_and_context_takeover_change_each_frame(codec: Codec) -> None:
    assert codec.share_key is None
    assert codec.message("Hello" * 100) != codec.message("Hello" * 100)


def test_empty_messages_work_between_compressed_ones() -> None:
    sender, receiver = (compressing(client, Deflate(min_size=0)) for client in (True, False))
    sent = ["Hello", "", "Hello", b"", b"", "Hello"]
    assert receive(receiver, b"".join(map(sender.message, sent))) == (sent, None)


@given(
    sent=st.lists(st.text(max_size=200) | st.binary(max_size=200) | st.just("x" * 2000), max_size=5),
    settings=st.none()
    | st.builds(
        Deflate,
        server_max_window_bits=st.integers(8, 15),
        client_max_window_bits=st.integers(8, 15),
        server_no_context_takeover=st.booleans(),
        client_no_context_takeover=st.booleans(),
        min_size=st.integers(0, 100),
    ),
    step=st.integers(1, 5000),
)
def test_one_codec_receives_what_the_other_sends(
    sent: list[str | bytes], settings: Deflate | None, step: int
) -> None:
    pair = [
        Codec(client, deflate=settings and PerMessageDeflate(settings, client)) for client in (True, False)
    ]
    for sender, receiver in (pair, pair[::-1]):
        data = b"".join(map(sender.message, sent)) + sender.close(Close(1000))
        reads = (data[i : i + step] for i in range(0, len(data), step))
        assert receive(receiver, *reads) == ([*sent, Close(1000)], None)


@pytest.mark.parametrize(
    ("octets", "begun"),
    [
        (b"", False),
        (frame(TEXT, b"hello"), False),
        (frame(TEXT, b"hello")[:1], True),
        (frame(TEXT, b"hello")[:-1], True),
        (frame(TEXT, b"hel", fin=False), True),
        (frame(TEXT, b"hel", fin=False) + frame(PING), True),
        (frame(TEXT, b"hel", fin=False) + frame(CONTINUATION, b"lo"), False),
        (frame(PING, b"hello"), False),
    ],
)
def test_has_partial_message_says_whether_a_message_has_started(octets, begun):
    codec = Codec(client=False)
    receive(codec, octets)
    assert codec.has_partial_message() is begun


@pytest.mark.parametrize("message", ["é", b"\xff", bytearray(b"x"), array.array("H", [1])])
def test_a_message_that_can_be_sent_passes_the_check(message: Any) -> None:
    check_message(message)


@pytest.mark.parametrize(("message", "error"), [("\ud800", ValueError), (5, TypeError), (None, TypeError)])
def test_a_message_that_cannot_be_sent_is_refused(message: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_message(message)
