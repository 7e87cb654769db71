from __future__ import annotations

import zlib

import pytest

from endwell.ending import Cause, Close
from endwell.options import Deflate
from endwell.protocol.deadline import NEVER
from endwell.protocol.inbox import Inbox
from endwell.protocol.pause import Pause
from endwell.protocol.receiver import Receiver
from endwell.wire.codec import Codec, Ping, Pong
from endwell.wire.deflate import PerMessageDeflate
from endwell.wire.frames import BINARY, build
from endwell.wire.hixie import Hixie
from tests.protocol.core import (
    RESET,
    Application,
    connection,
    drain_outbox,
    frame,
    frames_of,
    opened,
    sent_frames,
)
from tests.wire.peer import form

# -- messages ---------------------------------------------------------------------


def test_messages_leave_the_inbox_in_order():
    core = opened()
    core.receive(frame(core, "message", "a") + frame(core, "message", b"b"), 1.0)
    assert list(core.inbox) == ["a", b"b"]


def test_a_sent_message_is_queued_and_counted():
    core = opened()
    assert core.send("hi", 1.0)
    assert sent_frames(core) == ["hi"]
    core.eof(2.0)
    assert (core.ending.messages_out, core.ending.bytes_out) == (1, 4)


def test_a_broadcast_is_framed_once_and_counted_by_each_connection():
    frames = {}
    cores = [opened(), opened()]
    made = [core.share("hi", frames, 1.0) for core in cores]
    assert made[0] is made[1]
    for core in cores:
        assert not core.outbox.size
        core.outbox.append(made[0])
        assert sent_frames(core) == ["hi"]
        core.eof(2.0)
        assert (core.ending.messages_out, core.ending.bytes_out) == (1, 4)


def test_connections_with_other_framing_get_their_own_broadcast_frame():
    frames = {}
    cores = [opened(client=True), opened(), opened(client=True)]
    made = [core.share("hi", frames, 1.0) for core in cores]
    assert list(frames.values()) == [made[1]]
    assert [frames_of(core, data) for core, data in zip(cores, made, strict=True)] == [["hi"]] * 3


def test_several_messages_are_framed_together_and_once():
    frames = {}
    cores = [opened(), opened(), opened(client=True)]
    made = [core.share_all(["hi", b"you"], frames, 1.0) for core in cores]
    assert made[0] is made[1]
    for core, octets in zip(cores, made, strict=True):
        assert frames_of(core, octets) == ["hi", b"you"]
        core.eof(2.0)
        assert core.ending.messages_out == 2
    only = opened().share_all(["hi"], {}, 1.0)
    assert only == opened().share("hi", {}, 1.0)
    assert connection().share_all(["hi"], {}, 1.0) is None


def test_a_broadcast_counts_as_activity():
    core = opened(idle_timeout=10.0)
    core.share("hi", {}, 9.0)
    core.tick(18.0)
    assert core.is_open


def test_a_connection_that_is_not_open_receives_no_broadcast():
    closing = opened()
    closing.close(Close(1000, ""), 0.0)
    for core in (connection(), closing):
        assert core.share("hi", {}, 0.0) is None


def test_nothing_is_sent_before_the_opening_or_after_a_close():
    assert not connection().send("x", 0.0)
    assert connection().ping(None, 0.0) is None
    core = opened()
    core.close(Close(1000, ""), 1.0)
    drain_outbox(core)
    assert not core.send("x", 2.0)
    assert core.ping(None, 2.0) is None
    assert not core.outbox.size


def test_a_full_inbox_pauses_reading_of_an_open_connection():
    core = opened(max_queue=2)
    core.receive(frame(core, "message", "x") * 2, 1.0)
    assert not core.wants_read()
    core.inbox.popleft()
    assert core.wants_read()


def test_an_inbox_of_few_large_messages_is_full_too():
    core = opened(max_size=100)
    core.receive(frame(core, "message", "x" * 99), 1.0)
    assert core.wants_read()
    core.receive(frame(core, "message", b"y" * 100), 1.0)
    assert not core.wants_read()
    core.inbox.popleft()
    core.inbox.popleft()
    assert core.wants_read()


def bombs(count):
    """Messages of 1 MiB, each of a few bytes on the wire."""
    compressor = zlib.compressobj(wbits=-12)
    bomb = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return build(BINARY, bomb[:-4], True, rsv1=True) * count


def test_a_read_that_inflates_beyond_the_inbox_is_decoded_later():
    core = connection()
    core.accept(Codec(False, deflate=PerMessageDeflate(Deflate(), client=False)), 0.0)
    core.receive(bombs(3) + frame(core, "close", 1000, ""), 1.0)
    for _ in range(3):
        assert (len(core.inbox), core.has_unparsed(), core.wants_read()) == (1, True, False)
        core.inbox.popleft()
        assert core.wants_read()
        core.feed(bytearray(), 0, 2.0)
    assert not core.has_unparsed()
    assert core.received == Close(1000)


def test_undecoded_data_does_not_count_as_heard():
    core = connection()
    core.accept(Codec(False, deflate=PerMessageDeflate(Deflate(), client=False)), 0.0)
    core.receive(bombs(2), 1.0)
    core.feed(bytearray(), 0, 2.0)
    assert core.last_heard == 1.0


def test_a_full_inbox_never_blocks_the_closing_handshake():
    core = opened(max_queue=1)
    core.receive(frame(core, "message", "1"), 1.0)
    core.close(Close(1000, ""), 2.0)
    assert core.wants_read()
    core.receive(frame(core, "message", "2"), 3.0)
    core.receive(frame(core, "close", 1000, ""), 3.0)
    core.eof(3.0)
    assert list(core.inbox) == ["1"]
    drain_outbox(core)
    assert core.ending.dropped_messages == 1
    assert core.ending.messages_in == 2


def test_messages_received_while_closing_are_delivered_up_to_the_limit():
    core = opened()
    core.close(Close(1000, ""), 1.0)
    core.receive(frame(core, "message", "late"), 2.0)
    assert list(core.inbox) == ["late"]


# -- pings ------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_payload():
    core = opened()
    core.receive(frame(core, "ping", b"abc"), 1.0)
    assert sent_frames(core) == [Pong(b"abc")]


def test_only_the_newest_pong_is_queued_for_a_non_reading_peer():
    core = opened(write_limit=10)
    core.send("x" * 100, 0.0)
    core.sent(0, 0.0)
    for number in range(1000):
        core.receive(frame(core, "ping", b"%d" % number), 1.0)
    assert core.outbox.size == 102
    assert sent_frames(core, 2.0) == ["x" * 100]
    assert sent_frames(core) == [Pong(b"999")]


def test_no_pong_follows_our_close():
    core = opened()
    core.close(Close(1000, ""), 1.0)
    drain_outbox(core)
    core.receive(frame(core, "ping", b"abc"), 2.0)
    assert not core.outbox.size


def test_a_pong_gives_the_round_trip_time():
    core = opened()
    payload = core.ping(None, 1.0)
    assert sent_frames(core) == [Ping(payload)]
    core.receive(frame(core, "pong", payload), 1.25)
    assert core.answered == [(payload, 0.25)]
    core.eof(2.0)
    assert core.ending.latency == 0.25


# -- the receiver -------------------------------------------------------------


class Full(Inbox):
    def is_full(self):
        return True


def fill(core):
    core.deliver_to(Receiver(Full()))


def end_delivery(core):
    core.pause(Pause.DELIVERY)


@pytest.mark.parametrize(("pause", "why"), [(fill, Pause.INBOX), (end_delivery, Pause.DELIVERY)])
def test_a_full_receiver_pauses_reading_until_the_close(pause, why):
    core = opened(max_queue=4)
    pause(core)
    assert not core.wants_read()
    assert core.pauses() == why
    core.close(Close(1000, ""), 1.0)
    assert core.wants_read()
    core.receive(frame(core, "message", "late"), 2.0)
    core.eof(3.0)
    assert core.ending.dropped_messages == 1


def test_the_core_counts_consumed_and_answered_messages():
    core = opened(max_queue=4)
    assert (core.messages_consumed(), core.has_partial_message(), core.has_sent()) == (0, False, False)
    message = frame(core, "message", "hello")
    core.receive(message + message[:3], 1.0)
    assert (core.messages_consumed(), core.has_partial_message()) == (0, True)
    core.inbox.popleft()
    assert core.messages_consumed() == 1
    core.receive(message[3:], 2.0)
    assert (core.messages_consumed(), core.has_partial_message()) == (1, False)
    core.send("answer", 3.0)
    assert core.has_sent()


@pytest.mark.parametrize(
    "cue",
    [
        lambda core: core.close(Close(1000, ""), 1.0),
        lambda core: core.receive(frame(core, "close", 1001, ""), 1.0),
        lambda core: core.receive(b"\x83\x80", 1.0),
        lambda core: core.eof(1.0),
        lambda core: core.lost(RESET, 1.0),
        lambda core: core.tick(1000.0),
    ],
    ids=["we close", "they close", "they err", "eof", "lost", "lifetime"],
)
def test_last_call_runs_once_and_its_messages_precede_the_close(cue):
    core = opened(max_lifetime=10.0, ping_interval=None)
    calls = []

    def last_call():
        calls.append(core.is_open)
        assert core.send("last words", 1.0)

    core.deliver_to(Application(core, last_call=last_call))
    cue(core)
    core.close(Close(1000, ""), 1.0)
    core.lost(RESET, 2.0)
    assert calls == [True]
    assert sent_frames(core)[0] == "last words"
    assert core.ending.messages_out == 1


def test_each_reason_for_paused_reading_is_reported():
    core = opened(max_queue=1, max_size=2**21)
    assert core.pauses() == 0
    core.receive(frame(core, "message", "x"), 1.0)
    core.pause(Pause.DELIVERY)
    assert core.pauses() == Pause.DELIVERY | Pause.INBOX
    core.resume(Pause.DELIVERY)
    core.inbox.popleft()
    assert core.wants_read()
    core.receive(frame(core, "message", "x" * 2**21)[:-1], 2.0)
    assert core.pauses() == Pause.AHEAD
    core.want_message()
    assert core.pauses() == 0


def test_a_server_does_not_read_while_it_sends_the_response():
    core = connection()
    core.pause(Pause.REQUEST)
    assert core.pauses() == Pause.REQUEST
    core.accept(Codec(False), 1.0)
    assert core.wants_read()
    core = connection()
    core.pause(Pause.REQUEST)
    core.refuse(b"HTTP/1.1 404 Not Found\r\n\r\n", 1.0)
    assert core.wants_read()


def test_a_new_receiver_receives_the_unread_messages_first():
    core = opened()
    core.receive(frame(core, "message", "first") + frame(core, "message", "second"), 1.0)
    core.inbox.popleft()
    receiver = Receiver(Inbox(max_messages=2))
    core.deliver_to(receiver)
    assert core.inbox is receiver.inbox
    assert (core.messages_consumed(), core.wants_read()) == (1, True)
    core.receive(frame(core, "message", "third"), 2.0)
    assert list(receiver.inbox) == ["second", "third"]
    assert core.pauses() == Pause.INBOX


# -- the opening ----------------------------------------------------------------


def test_the_options_of_a_route_replace_those_of_the_server():
    core = connection(max_queue=4)
    core.use(core.options.replace(max_queue=1, max_size=5))
    core.accept(Codec(False, core.options.max_size), 0.0)
    core.receive(frame(core, "message", "x"), 1.0)
    assert core.pauses() == Pause.INBOX


def test_a_complete_request_has_no_deadline_until_its_answer_gets_one():
    core = connection(open_timeout=10.0)
    core.connected = True
    assert core.deadline == 10.0
    core.requested()
    assert core.deadline == NEVER
    core.limit_request(30.0)
    assert core.deadline == 30.0
    core.tick(29.0)
    assert not core.ended
    core.tick(30.0)
    assert core.ended


def test_the_next_request_has_the_whole_open_timeout():
    core = connection(open_timeout=10.0)
    core.connected = True
    core.requested()
    core.next_request(100.0, 2e9)
    assert core.deadline == 110.0
    core.lost(RESET, 103.0)
    assert (core.ending.duration, core.ending.opened_at) == (3.0, 2e9)


def test_a_response_that_was_sent_already_is_not_sent_again():
    core = connection()
    core.open(b"HTTP/1.1 200 OK\r\n\r\n")
    core.refuse(b"", 1.0)
    assert drain_outbox(core) == b"HTTP/1.1 200 OK\r\n\r\n"
    core.eof(2.0)
    assert core.ending.cause is Cause.HANDSHAKE_REJECTED


# -- reading into the payload -------------------------------------------------


def test_a_long_payload_is_read_into_its_room():
    core = opened()
    message = bytes(range(256)) * 400
    data = frame(core, "message", message)
    assert core.room() is None
    core.receive(data[:1000], 1.0)
    codec = core.room()
    assert codec.missing == len(data) - 1000
    form.put(codec.room, codec.room_fill, bytearray(data), 1000, 101_000, b"")
    core.feed(bytearray(), 0, 2.0, inside=100_000)
    # What is missing now costs less in the read buffer.
    assert core.room() is None
    core.receive(data[101_000:], 3.0)
    assert list(core.inbox) == [message]
    core.eof(4.0)
    assert core.ending.bytes_in == len(data)


# -- the authorization ----------------------------------------------------------


def test_an_authorization_ends_at_its_time_and_what_comes_later_is_not_delivered():
    core = opened(ping_interval=None)
    core.authorize(10.0)
    assert core.deadline == 10.0
    core.receive(frame(core, "message", "authorized"), 9.0)
    core.tick(10.0)
    assert sent_frames(core) == [Close(3000, "authorization expired: fetch a new token; retry 0-1s")]
    core.receive(frame(core, "message", "late"), 11.0)
    core.eof(12.0)
    assert (core.ending.cause, list(core.inbox)) == (Cause.AUTH_EXPIRED, ["authorized"])
    assert core.ending.dropped_messages == 1


def test_a_later_authorization_replaces_an_earlier_one():
    core = opened(ping_interval=None)
    core.authorize(10.0)
    core.authorize(20.0)
    core.tick(10.0)
    assert (core.is_open, core.deadline) == (True, 20.0)
    core.authorize(NEVER)
    assert core.deadline == NEVER


@pytest.mark.parametrize(("until", "cause"), [(5.0, Cause.AUTH_EXPIRED), (50.0, Cause.LIFETIME_REACHED)])
def test_the_lifetime_and_the_authorization_each_end_a_connection(until, cause):
    core = opened(ping_interval=None, max_lifetime=10.0)
    core.authorize(until)
    assert core.deadline == min(until, 10.0)
    core.tick(core.deadline)
    core.eof(60.0)
    assert core.ending.cause is cause


# -- the protocol ----------------------------------------------------------------


def test_a_message_of_the_control_channel_is_neither_compressed_nor_counted():
    core = connection(client=True)
    core.say("too early")
    assert not core.outbox.size
    core.accept(Codec(True, deflate=PerMessageDeflate(Deflate(), client=True)), 0.0)
    core.say("a" * 100)
    assert sent_frames(core) == ["a" * 100]  # this peer has no decompressor
    assert core.messages_out == 0
    core.close(Close(1000), 1.0)
    drain_outbox(core)
    core.say("too late")
    assert not core.outbox.size


def test_only_hixie_has_no_binary_messages():
    core = connection()
    assert core.takes_binary()
    core.accept(Codec(False), 0.0)
    assert core.takes_binary()
    old = connection()
    old.accept(Hixie(False, None, True), 0.0)
    assert not old.takes_binary()


def test_a_ping_that_is_too_long_raises_even_after_the_close():
    core = opened()
    core.close(Close(1000), 1.0)
    drain_outbox(core)
    with pytest.raises(ValueError, match="125"):
        core.ping(b"x" * 126, 2.0)
    assert core.ping(b"x", 2.0) is None
    assert not core.outbox.size
