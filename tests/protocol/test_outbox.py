from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from endwell.protocol.outbox import Outbox


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=10), st.data())
def test_taken_in_any_portions_the_bytes_leave_in_order(buffers, data):
    outbox = Outbox(None)
    for buffer in buffers:
        outbox.append(buffer)
    left = b""
    while outbox.size:
        count = data.draw(st.integers(1, outbox.size))
        left += b"".join(outbox.buffers)[:count]
        outbox.take(count, 0.0)
    assert left == b"".join(buffers)
    assert not outbox.buffers
    assert outbox.taken == len(left)


def test_a_blocked_queue_has_a_deadline_that_only_progress_moves():
    outbox = Outbox(30.0)
    outbox.append(b"abcd")
    assert outbox.take(0, 1.0) is False
    assert outbox.stuck_at == 31.0
    outbox.take(0, 5.0)
    assert outbox.stuck_at == 31.0
    assert outbox.take(1, 10.0) is True
    assert outbox.stuck_at == 40.0
    outbox.take(3, 11.0)
    assert outbox.stuck_at is None


def test_bytes_that_leave_at_once_prove_nothing_about_the_peer():
    outbox = Outbox(30.0)
    outbox.append(b"abcd")
    assert outbox.take(4, 1.0) is False


def test_without_a_write_timeout_nothing_is_ever_stuck():
    outbox = Outbox(None)
    outbox.append(b"abcd")
    outbox.take(0, 1.0)
    assert outbox.stuck_at is None
