"""Token buckets, and the core that uses them."""

from __future__ import annotations

import random

import pytest

from endwell import Limit
from endwell.ending import Cause, Close
from endwell.limit import check_limits
from endwell.protocol.limiter import Bucket, Limiter, shared_bucket
from endwell.protocol.pause import Pause
from endwell.wire.codec import Codec
from tests.protocol.core import connection, frame, sent_frames


def limited(*limits, **options):
    core = connection(ping_interval=None, **options)
    core.connected = True
    core.limit(Limiter([Bucket(limit) for limit in limits]))
    core.accept(Codec(False, core.options.max_size), 0.0)
    return core


def send(core, now, *messages):
    core.receive(b"".join(frame(core, "message", message) for message in messages), now)


def read(core):
    messages = []
    while core.inbox.waiting():
        messages.append(core.inbox.popleft())
    return messages


# --- the bucket ----------------------------------------------------------------------------


def test_a_full_bucket_has_the_burst_and_refills_at_the_rate():
    bucket = Bucket(Limit(messages=20, burst=40, per=2.0))
    assert int(bucket.room(100.0)) == 40
    bucket.take(40, 0, 100.0)
    assert (int(bucket.room(100.0)), bucket.fits(1, 0, 100.0)) == (0, False)
    assert int(bucket.room(100.35)) == 3
    assert bucket.full_at() == pytest.approx(104.0)
    assert int(bucket.room(1000.0)) == 40


@pytest.mark.parametrize("start", [0.0, 1e5, 1e8])
def test_the_rate_is_exact_over_a_long_time(start):
    bucket, now, taken = Bucket(Limit(messages=7, per=3.0)), start, 0
    dice = random.Random(1)
    while now < start + 3000:
        while bucket.fits(1, 0, now):
            bucket.take(1, 0, now)
            taken += 1
        now += dice.uniform(0.01, 0.5)
    assert 7000 <= taken <= 7007 + 1


def test_when_it_is_ready_there_is_room():
    dice = random.Random(2)
    for _ in range(2000):
        limit = Limit(
            messages=dice.randrange(1, 1000),
            per=dice.uniform(0.001, 100),
            burst=dice.randrange(1, 1000),
            bytes=dice.randrange(1, 1000),
        )
        bucket, now = Bucket(limit), dice.uniform(0, 1e6)
        bucket.take(dice.randrange(1, 2000), dice.randrange(1, 9000), now)
        if bucket.room(now) < 1:
            ready = bucket.ready_at()
            assert ready > now
            assert bucket.room(ready) >= 1


@pytest.mark.parametrize("uptime", [1e5, 6e6, 3e7, 1e9])
def test_a_full_bucket_of_one_message_has_room_however_long_the_clock_has_run(uptime):
    # The sum of this time and the depth of the bucket, in floats, may be less than the exact one. Half of these
    # rates then let no message through, and woke the loop without end.
    for rate in (*range(1, 200), 10**4, 10**6, 10**9):
        for limit in (Limit(messages=rate, burst=1), Limit(bytes=rate, burst_bytes=1)):
            bucket = Bucket(limit)
            assert bucket.room(uptime) >= 1
            assert bucket.fits(1, 1, uptime)
            bucket.take(1, 1, uptime)
            later = bucket.ready_at() + 0.01
            assert bucket.room(later) >= 1
            assert not bucket.take(0, 0, later)


def test_wait_lets_messages_through_after_months():
    now = 6.04e6
    core = limited(Limit(messages=20, burst=1))
    send(core, now, *"abc")
    assert read(core) == ["a"]
    core.tick(core.deadline)
    core.feed(bytearray(), 0, now + 0.06)
    assert read(core) == ["b"]


def test_bytes_have_a_bucket_of_their_own():
    bucket = Bucket(Limit(bytes=1000, burst_bytes=3000))
    assert bucket.fits(10**6, 3000, 0.0)
    bucket.take(1, 3000, 0.0)
    assert (bucket.fits(1, 1, 0.0), bucket.room(0.0)) == (False, 0.0)
    assert bucket.fits(1, 500, 0.5)


# --- the keys -----------------------------------------------------------------------------


def test_connections_with_the_same_key_share_a_bucket():
    limit, other = Limit(messages=1), Limit(messages=1)
    bucket = shared_bucket(limit, "a", 0.0)
    assert shared_bucket(limit, "a", 0.0) is bucket
    assert shared_bucket(limit, "b", 0.0) is not bucket
    assert shared_bucket(other, "a", 0.0) is not bucket


def test_the_number_of_keys_is_limited_and_an_unused_one_goes_first():
    limit = Limit(messages=1, per=100.0, max_keys=100)
    for number in range(100):
        shared_bucket(limit, number, 0.0).take(1, 0, 0.0)
    used = shared_bucket(limit, 0, 1.0)
    for number in range(1000, 3000):
        shared_bucket(limit, number, 2.0).take(1, 0, 2.0)
        assert shared_bucket(limit, 0, 2.0) is used  # the most recently used are kept
        assert len(limit._shared) == 100
    unused = Limit(messages=1, per=1.0, max_keys=3)
    shared_bucket(unused, "exhausted", 0.0).take(1, 0, 50.0)
    for key in ("idle", "other"):
        shared_bucket(unused, key, 0.0).take(1, 0, 0.0)
    shared_bucket(unused, "new", 50.5)
    assert list(unused._shared) == ["exhausted", "other", "new"]


def test_only_the_oldest_keys_are_examined_for_an_unused_one():
    limit = Limit(messages=1, per=100.0, max_keys=30)
    for number in range(30):
        # Only the bucket of the last key is full.
        shared_bucket(limit, number, 0.0).take(int(number < 29), 0, 0.0)
    shared_bucket(limit, "new", 1.0)
    assert list(limit._shared) == [*range(1, 30), "new"]
    few = Limit(messages=1, per=100.0, max_keys=2)
    for number in range(2):
        shared_bucket(few, number, 0.0).take(1, 0, 0.0)
    shared_bucket(few, "new", 1.0)
    assert list(few._shared) == [1, "new"]


# --- the core --------------------------------------------------------------------------------


def test_wait_lets_the_burst_through_and_pauses_reading():
    core = limited(Limit(messages=10, burst=3))
    send(core, 0.0, *"abcdefgh")
    assert read(core) == ["a", "b", "c"]
    assert core.pauses() == Pause.RATE
    assert core.has_unparsed()
    assert core.deadline == pytest.approx(0.25)
    core.tick(core.deadline)
    assert core.wants_read()
    core.feed(bytearray(), 0, 0.25)
    assert read(core) == ["d", "e"]
    assert core.pauses() == Pause.RATE


def test_wait_never_exceeds_the_rate_and_loses_nothing():
    core, now, came = limited(Limit(messages=10, burst=3)), 0.0, []
    send(core, now, *map(str, range(100)))
    while len(came) < 100:
        came += read(core)
        assert len(came) <= 3 + 10 * now + 1e-6
        if core.pauses():
            now = core.deadline
            core.tick(now)
        core.feed(bytearray(), 0, now)
    assert came == [str(number) for number in range(100)]
    assert 9.0 <= now <= 10.5
    assert core.dropped_messages == 0


def test_wait_counts_messages_in_fragments_too():
    core = limited(Limit(messages=10, burst=3))
    fragments = b"".join(frame(core, "message", "x") for _ in range(2))
    core.receive(fragments * 4, 0.0)
    assert len(read(core)) == 3


def test_wait_by_bytes_never_exceeds_the_rate_and_loses_nothing():
    core, now, size, sent = limited(Limit(bytes=100, burst_bytes=300)), 0.0, 0, ["x" * 40] * 50
    send(core, now, *sent[:25])
    send(core, now, *sent[25:])
    came = []
    while len(came) < 50:
        came += read(core)
        size = sum(map(len, came))
        # The parser does not know the size of a message before it has it, so one read may exceed the burst.
        assert size <= 300 + 1000 + 100 * now
        if core.pauses():
            assert core.deadline > now
            now = core.deadline
            core.tick(now)
        core.feed(bytearray(), 0, now)
    assert (came, core.dropped_messages) == (sent, 0)
    assert 7.0 <= now <= 17.5


@pytest.mark.parametrize("text", ["x", "é"])
@pytest.mark.parametrize("size", [1, 10, 99])
def test_wait_by_messages_and_bytes_pauses_at_the_first_that_is_empty(size, text):
    core = limited(Limit(messages=50, burst=50, bytes=500, burst_bytes=500))
    came = []
    while not core.pauses() and len(came) < 100:
        send(core, 0.0, text * size)
        came += read(core)
    assert len(came) == min(50, -(-500 // size))
    # Both buckets refill.
    core.tick(core.deadline)
    assert core.wants_read()


def test_messages_and_bytes_are_counted_once_in_any_number_of_reads():
    limit = Limit(messages=100, bytes=1000)
    buckets, cores = [Bucket(limit), Bucket(limit)], [limited(), limited()]
    for core, bucket in zip(cores, buckets, strict=True):
        core.limit(Limiter([bucket]))
    send(cores[0], 10.0, "cde", "x", b"f")
    for message in ("cde", "x", b"f"):
        send(cores[1], 10.0, message)
    assert [bucket.full_at() for bucket in buckets] == pytest.approx([10.03, 10.03])
    bucket, core = buckets[1], cores[1]
    send(core, 10.0, "a" * 500)
    assert bucket.full_at() == pytest.approx(10.505)
    assert core.wants_read()
    # The last message that is let through is counted once, too.
    send(core, 10.0, "a" * 496)
    assert bucket.full_at() == pytest.approx(11.001)
    assert core.pauses() == Pause.RATE


def test_drop_removes_the_excess_and_counts_it():
    core = limited(Limit(messages=10, burst=3, excess="drop"))
    send(core, 0.0, *"abcdefgh")
    assert read(core) == ["a", "b", "c"]
    assert (core.messages_in, core.dropped_messages, core.messages_consumed()) == (8, 5, 3)
    assert core.wants_read()
    send(core, 0.1, *"xy")
    assert read(core) == ["x"]


def test_the_first_dropped_message_is_told_once():
    told = []
    core = limited()
    core.limit(
        Limiter([Bucket(Limit(messages=10, burst=2, excess="drop"))], lambda: told.append(core.messages_in))
    )
    send(core, 0.0, "a", "b")
    assert told == []
    send(core, 0.0, *"cd")
    send(core, 0.0, *"ef")
    assert (len(told), core.dropped_messages) == (1, 4)


def test_a_limit_that_closes_drops_nothing_before():
    told = []
    core = limited()
    core.limit(Limiter([Bucket(Limit(messages=1, excess="close"))], lambda: told.append(True)))
    send(core, 0.0, *"ab")
    core.tick(0.01)
    assert (told, core.is_open) == ([], False)


def test_drop_by_bytes_keeps_the_messages_that_fit():
    core = limited(Limit(bytes=10, excess="drop"))
    send(core, 0.0, "1234", "123456789", "12345", "12", "1")
    assert read(core) == ["1234", "12345", "1"]


def test_close_delivers_what_fits_and_closes_with_1008_and_advice():
    core = limited(Limit(messages=10, burst=30, excess="close"))
    send(core, 0.0, *"a" * 40)
    assert len(read(core)) == 30
    assert core.is_open
    send(core, 0.005, "b")
    core.tick(0.01)
    assert not core.is_open
    assert sent_frames(core)[-1] == Close(1008, "messages came faster than allowed; retry 3-6s")
    core.eof(0.02)
    assert core.ending.cause is Cause.POLICY_LIMIT
    assert (core.ending.messages_in, core.ending.dropped_messages) == (41, 11)


def test_an_error_behind_messages_that_fit_does_not_remove_them():
    core = limited(Limit(messages=10, excess="close"))
    core.receive(frame(core, "message", "a") + b"\xff\xff", 0.0)
    assert read(core) == ["a"]


def test_several_limits_apply_together():
    core = limited(Limit(messages=100, excess="drop", burst=5), Limit(messages=10, burst=3))
    send(core, 0.0, *"abcdefgh")
    assert read(core) == ["a", "b", "c"]
    assert core.pauses() == Pause.RATE


def test_a_shared_bucket_that_another_connection_has_emptied_pauses_without_a_message():
    limit = Limit(messages=10, burst=3)
    bucket = Bucket(limit)
    one, two = limited(), limited()
    for core in (one, two):
        core.limit(Limiter([bucket]))
    send(one, 0.0, *"abc")
    send(two, 0.0, *"xyz")
    assert (read(one), read(two)) == (["a", "b", "c"], [])
    assert two.pauses() == Pause.RATE
    now = two.deadline
    two.tick(now)
    two.feed(bytearray(), 0, now)
    assert read(two) == ["x", "y"]


def test_a_closing_connection_reads_on():
    core = limited(Limit(messages=1))
    send(core, 0.0, *"ab")
    assert core.pauses() == Pause.RATE
    core.close(Close(1000), 0.1)
    assert core.wants_read()
    core.receive(frame(core, "close", 1000), 0.2)
    assert core.received == Close(1000)


async def by_user(request):
    return request.state["user"]


@pytest.mark.parametrize(
    ("keywords", "error", "text"),
    [
        ({}, ValueError, "a Limit needs messages or bytes"),
        ({"messages": 0}, ValueError, "messages must be"),
        ({"messages": 1.5}, TypeError, "messages must be"),
        ({"messages": True}, TypeError, "messages must be"),
        ({"messages": 10**400}, ValueError, "messages must be"),
        ({"bytes": 1, "burst_bytes": 10**400}, ValueError, "burst_bytes must be"),
        ({"bytes": 1, "burst": 2}, ValueError, "burst has no effect without messages"),
        ({"messages": 1, "burst_bytes": 2}, ValueError, "burst_bytes has no effect without bytes"),
        ({"messages": 1, "per": 0}, ValueError, "per must be"),
        ({"messages": 1, "per": float("nan")}, ValueError, "per must be"),
        ({"messages": 1, "per": 1e-300}, ValueError, "per must be"),
        ({"messages": 1, "per": 1e308}, ValueError, "per must be"),
        ({"messages": 1, "excess": "ignore"}, ValueError, "excess must be"),
        ({"messages": 1, "key": "user"}, ValueError, "key must be"),
        # Each coroutine would have a bucket of its own, so nothing would be limited.
        ({"messages": 1, "key": by_user}, TypeError, "key must be"),
        ({"messages": 1, "max_keys": None}, TypeError, "max_keys must be"),
    ],
)
def test_a_wrong_limit_raises(keywords, error, text):
    with pytest.raises(error, match=f"^{text}"):
        Limit(**keywords)


def test_limits_are_one_limit_or_several():
    one, two = Limit(messages=1), Limit(bytes=1)
    assert (check_limits(one), check_limits([one, two]), check_limits(())) == ((one,), (one, two), ())
    for wrong in (5, [one, 5]):
        with pytest.raises(TypeError, match="limits must be a Limit or several, not 5"):
            check_limits(wrong)
