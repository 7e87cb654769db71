from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from endwell.protocol.deadline import NEVER
from endwell.protocol.outbox import Outbox
from endwell.wire.payload import frame


def waiting(outbox):
    """The octets that wait, read without removing them."""
    block = b"" if outbox.block is None else outbox.block[: outbox.fill]
    return b"".join(outbox.sealed) + block


PAYLOADS = st.one_of(st.binary(max_size=50), st.sampled_from([100, 8191, 8192, 70_000]).map(bytes))
KINDS = st.sampled_from([bytes, bytearray, memoryview])


@given(st.lists(st.tuples(PAYLOADS, KINDS, st.sampled_from([b"", b"\1\2\3\4"])), max_size=8), st.data())
def test_frames_are_sent_in_order_with_interleaved_writes(frames, data):
    outbox, left, expected = Outbox(None), b"", b""
    for payload, kind, key in frames:
        outbox.append_frame(0x82, kind(payload), key)
        expected += frame(0x82, payload, key)
        assert left + waiting(outbox) == expected
        assert outbox.size == len(expected) - len(left)
        if data.draw(st.booleans()):
            count = data.draw(st.integers(0, outbox.size))
            left += waiting(outbox)[:count]
            outbox.consume(count, 0.0)
    outbox.append(b"last")
    assert left + b"".join(outbox.buffers()) == expected + b"last"


def test_a_long_payload_is_queued_without_a_copy():
    outbox, payload = Outbox(None), bytes(100_000)
    outbox.append_frame(0x82, b"short", b"")
    outbox.append_frame(0x82, payload, b"")
    assert outbox.buffers()[-1] is payload


def test_a_mutable_payload_is_copied():
    outbox, payload = Outbox(None), bytearray(100_000)
    outbox.append_frame(0x82, payload, b"")
    payload[:] = b"x" * 100_000
    assert b"x" not in waiting(outbox)


def test_a_long_queue_keeps_no_excess_memory():
    boxes = [Outbox(None) for _ in range(3)]
    for outbox in boxes:
        outbox.append(bytes(1000))
        outbox.consume(100, 0.0)
    assert all(outbox.block is None for outbox in boxes)
    for outbox in boxes:
        outbox.append(b"more")
        assert len(outbox.block) < 100


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.data())
def test_bytes_sent_in_any_portions_stay_in_order(buffers, data):
    outbox = Outbox(None)
    for buffer in buffers:
        outbox.append(buffer)
    left = b""
    while outbox.size:
        count = data.draw(st.integers(1, outbox.size))
        left += b"".join(outbox.buffers())[:count]
        outbox.consume(count, 0.0)
    assert left == b"".join(buffers)
    assert not outbox.buffers()
    assert outbox.bytes_sent == len(left)


def test_only_progress_moves_the_deadline_of_a_blocked_queue():
    outbox = Outbox(30.0)
    outbox.append(b"abcd")
    assert outbox.consume(0, 1.0) is False
    assert outbox.stuck_at == 31.0
    outbox.consume(0, 5.0)
    assert outbox.stuck_at == 31.0
    assert outbox.consume(1, 10.0) is True
    assert outbox.stuck_at == 40.0
    outbox.consume(3, 11.0)
    assert outbox.stuck_at == NEVER


def test_bytes_sent_without_blocking_do_not_prove_the_peer_alive():
    outbox = Outbox(30.0)
    outbox.append(b"abcd")
    assert outbox.consume(4, 1.0) is False


def test_without_write_timeout_the_queue_has_no_deadline():
    outbox = Outbox(None)
    outbox.append(b"abcd")
    outbox.consume(0, 1.0)
    assert outbox.stuck_at == NEVER
