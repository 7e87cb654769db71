from __future__ import annotations

import errno
import zlib

import pytest

from endwell.advice import RetryAdvice
from endwell.ending import Cause, Close, Initiator, TcpEnd
from endwell.errors import BadRequest, InvalidHandshake, ProtocolError
from endwell.options import Deflate
from endwell.protocol.closing import State
from endwell.protocol.deadline import NEVER
from endwell.protocol.inbox import Inbox
from endwell.protocol.pause import Pause
from endwell.protocol.receiver import Receiver
from endwell.wire.codec import Codec, Ping, Pong
from endwell.wire.deflate import PerMessageDeflate
from endwell.wire.frames import BINARY, build
from tests.protocol.core import connection, frame, frames_of, leave, opened, said

RESET = ConnectionResetError(errno.ECONNRESET, "reset")


# -- messages ---------------------------------------------------------------------


def test_messages_come_out_of_the_inbox_in_order():
    core = opened()
    core.receive(frame(core, "message", "a") + frame(core, "message", b"b"), 1.0)
    assert list(core.inbox) == ["a", b"b"]


def test_a_sent_message_is_queued_and_counted():
    core = opened()
    assert core.send("hi", 1.0)
    assert said(core) == ["hi"]
    core.eof(2.0)
    assert (core.ending.messages_out, core.ending.bytes_out) == (1, 4)


def test_a_message_for_many_is_framed_once_and_counted_by_each():
    frames = {}
    cores = [opened(), opened()]
    made = [core.share("hi", frames, 1.0) for core in cores]
    assert made[0] is made[1]
    for core in cores:
        assert not core.outbox.size
        core.outbox.append(made[0])
        assert said(core) == ["hi"]
        core.eof(2.0)
        assert (core.ending.messages_out, core.ending.bytes_out) == (1, 4)


def test_connections_that_frame_otherwise_get_their_own_frame_of_a_message_for_many():
    frames = {}
    cores = [opened(client=True), opened(), opened(client=True)]
    made = [core.share("hi", frames, 1.0) for core in cores]
    assert list(frames.values()) == [made[1]]
    assert [frames_of(core, data) for core, data in zip(cores, made, strict=True)] == [["hi"]] * 3


def test_a_message_for_many_keeps_a_connection_from_being_idle():
    core = opened(idle_timeout=10.0)
    core.share("hi", {}, 9.0)
    core.tick(18.0)
    assert core.is_open


def test_a_connection_that_is_not_open_has_no_part_in_a_message_for_many():
    closing = opened()
    closing.close(Close(1000, ""), 0.0)
    for core in (connection(), closing):
        assert core.share("hi", {}, 0.0) is None


def test_nothing_is_sent_before_the_opening_or_after_a_close():
    assert not connection().send("x", 0.0)
    assert connection().ping(None, 0.0) is None
    core = opened()
    core.close(Close(1000, ""), 1.0)
    leave(core)
    assert not core.send("x", 2.0)
    assert core.ping(None, 2.0) is None
    assert not core.outbox.size


def test_a_full_inbox_stops_the_reading_of_an_open_connection():
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
    """Messages of 1 MiB, each of which came in a few bytes."""
    compressor = zlib.compressobj(wbits=-12)
    bomb = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return build(BINARY, bomb[:-4], True, rsv1=True) * count


def test_a_read_that_inflates_to_much_waits_with_the_rest_until_there_is_room():
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


def test_what_waits_does_not_prove_the_peer_alive():
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
    leave(core)
    assert core.ending.dropped_messages == 1
    assert core.ending.messages_in == 2


def test_messages_that_come_while_closing_are_delivered_while_there_is_room():
    core = opened()
    core.close(Close(1000, ""), 1.0)
    core.receive(frame(core, "message", "late"), 2.0)
    assert list(core.inbox) == ["late"]


# -- pings ------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_payload():
    core = opened()
    core.receive(frame(core, "ping", b"abc"), 1.0)
    assert said(core) == [Pong(b"abc")]


def test_a_peer_that_pings_without_reading_is_owed_only_the_newest_pong():
    core = opened(write_limit=10)
    core.send("x" * 100, 0.0)
    core.sent(0, 0.0)
    for number in range(1000):
        core.receive(frame(core, "ping", b"%d" % number), 1.0)
    assert core.outbox.size == 102
    assert said(core, 2.0) == ["x" * 100]
    assert said(core) == [Pong(b"999")]


def test_no_pong_follows_our_close():
    core = opened()
    core.close(Close(1000, ""), 1.0)
    leave(core)
    core.receive(frame(core, "ping", b"abc"), 2.0)
    assert not core.outbox.size


def test_a_pong_tells_the_round_trip():
    core = opened()
    payload = core.ping(None, 1.0)
    assert said(core) == [Ping(payload)]
    core.receive(frame(core, "pong", payload), 1.25)
    assert core.answered == [(payload, 0.25)]
    core.eof(2.0)
    assert core.ending.latency == 0.25


# -- closing ----------------------------------------------------------------------


def test_we_close_they_answer_and_the_server_ends_tcp_first():
    core = opened()
    core.close(Close(3001, "bye"), 1.0)
    assert core.state is State.CLOSING
    assert not core.half_close
    assert said(core) == [Close(3001, "bye")]
    core.receive(frame(core, "close", 3001, "bye"), 1.5)
    assert core.state is State.LINGERING
    assert core.half_close
    core.eof(2.0)
    ending = core.ending
    assert (ending.cause, ending.initiator, ending.clean) == (Cause.APP_CLOSED, Initiator.LOCAL, True)
    assert ending.sent == ending.received == Close(3001, "bye")
    assert (ending.tcp, ending.duration, ending.opened_at, ending.ok) == (TcpEnd.FIN, 2.0, 1e9, False)


@pytest.mark.parametrize("close", [Close(), Close(1000), Close(1001, "away"), Close(4999, "x" * 123)])
def test_their_close_is_echoed_with_its_code_and_reason(close):
    core = opened()
    core.receive(frame(core, "close", close.code, close.reason), 1.0)
    assert core.state is State.LINGERING
    assert said(core) == [close]
    assert core.half_close
    core.eof(1.0)
    assert (core.ending.cause, core.ending.initiator, core.ending.clean) == (
        Cause.PEER_CLOSED,
        Initiator.PEER,
        True,
    )
    assert core.ending.received == core.ending.sent == close


def test_a_client_never_half_closes():
    core = opened(client=True)
    core.receive(frame(core, "close", 1000, ""), 1.0)
    assert not core.half_close
    assert core.state is State.LINGERING


def test_both_close_at_once_and_the_first_cue_names_the_cause():
    core = opened()
    core.close(Close(1000, "mine"), 1.0)
    core.receive(frame(core, "close", 1001, "theirs"), 1.0)
    assert said(core) == [Close(1000, "mine")]
    core.eof(2.0)
    assert (core.ending.cause, core.ending.clean, core.ending.code) == (Cause.APP_CLOSED, True, 1000)
    assert core.ending.received == Close(1001, "theirs")


def test_closing_twice_changes_nothing():
    core = opened()
    core.close(Close(1000, "first"), 1.0)
    core.close(Close(4000, "second"), 1.0)
    assert said(core) == [Close(1000, "first")]


def test_what_was_queued_before_the_close_leaves_before_it():
    core = opened()
    core.send("a", 0.0)
    core.close(Close(1000, ""), 0.0)
    assert said(core) == ["a", Close(1000, "")]


def test_a_close_that_did_not_leave_was_not_sent():
    core = opened()
    core.send("abc", 0.0)
    core.close(Close(1000, ""), 1.0)
    core.lost(RESET, 2.0)
    assert core.ending.sent is None
    assert core.ending.unsent_bytes == 5
    assert (core.ending.cause, core.ending.tcp, core.ending.exception) == (
        Cause.APP_CLOSED,
        TcpEnd.RST,
        RESET,
    )


def test_what_comes_after_their_close_is_discarded():
    core = opened()
    core.receive(frame(core, "close", 1000, "") + frame(core, "message", "x"), 1.0)
    core.receive(b"\xff" * 100, 1.0)
    assert not core.inbox
    assert core.state is State.LINGERING


def test_a_peer_that_never_answers_our_close_has_close_timeout():
    core = opened(close_timeout=3)
    core.close(Close(1000, ""), 1.0)
    leave(core)
    assert core.deadline == 4.0
    core.tick(3.9)
    assert core.state is State.CLOSING
    core.tick(4.0)
    assert core.abort
    assert (core.ending.clean, core.ending.tcp, core.ending.sent, core.ending.received) == (
        False,
        TcpEnd.TIMEOUT,
        Close(1000, ""),
        None,
    )
    assert core.deadline == NEVER


def test_a_peer_that_keeps_tcp_open_is_told_of_after_linger_timeout_and_cut_after_close_timeout():
    core = opened(close_timeout=3, linger_timeout=1)
    core.receive(frame(core, "close", 1000, ""), 1.0)
    leave(core, 1.5)
    assert core.deadline == 2.5  # from the moment on at which our Close left
    core.tick(2.5)
    assert (core.state, core.over, core.ended) == (State.DISCARDING, True, False)
    ending = core.ending
    assert (ending.clean, ending.tcp, ending.duration) == (True, TcpEnd.OPEN, 2.5)
    assert core.wants_read()
    core.receive(b"whatever", 3.0)
    assert core.deadline == 4.0
    core.tick(4.0)
    assert (core.ended, core.abort) == (True, True)
    assert core.ending is ending


def test_what_comes_after_an_ending_that_was_told_is_not_in_it_whenever_it_is_looked_at():
    core = opened(close_timeout=30, linger_timeout=1)
    core.receive(frame(core, "close", 1000, ""), 1.0)
    leave(core, 1.0)
    core.tick(2.0)
    core.stalled(2.0, 5.0, 7.0)
    core.lost(RESET, 7.0)
    assert core.ended
    assert (core.ending.tcp, core.ending.exception, core.ending.stalled) == (TcpEnd.OPEN, None, 0.0)


def test_a_client_cuts_a_server_that_keeps_tcp_open_after_linger_timeout():
    core = opened(True, close_timeout=3, linger_timeout=1)
    core.receive(frame(core, "close", 1000, ""), 1.0)
    leave(core, 1.0)
    core.tick(2.0)
    assert (core.ended, core.ending.clean, core.ending.tcp) == (True, True, TcpEnd.TIMEOUT)


def test_a_close_that_does_not_leave_has_close_timeout_and_is_told_when_that_is_over():
    core = opened(close_timeout=3, linger_timeout=1)
    core.receive(frame(core, "close", 1000, ""), 1.0)
    core.sent(0, 1.0)  # the system takes nothing
    assert core.deadline == 4.0
    core.tick(4.0)
    assert (core.ending.sent, core.ending.clean, core.ending.tcp) == (None, False, TcpEnd.TIMEOUT)


# -- a Close behind messages --------------------------------------------------------


class Application(Receiver):
    """Where the application waits for messages, if it does."""

    def __init__(self, core, waiting=False, last_call=lambda: None):
        super().__init__(core.inbox)
        self.waiting = waiting
        self.last_call = last_call

    def is_waiting(self):
        return self.waiting


def asked(client=False, **options):
    """A connection whose application has taken a question, behind which a Close came."""
    core = opened(client, ping_interval=None, **options)
    core.deliver_to(Application(core))
    core.receive(frame(core, "message", "question") + frame(core, "close", 4001, "bye"), 1.0)
    assert core.inbox.popleft() == "question"
    assert (core.state, core.is_open, core.answering) == (State.ANSWERING, True, True)
    assert core.received == Close(4001, "bye")
    return core


@pytest.mark.parametrize("client", [False, True])
def test_a_close_is_answered_when_the_application_has_come_back_and_may_answer_until_then(client):
    core = asked(client)
    assert leave(core, 1.0) == b""
    assert core.send("answer", 1.5)
    core.handled(1.5)
    assert not core.is_open
    assert said(core, 1.5) == ["answer", Close(4001, "bye")]
    core.eof(2.0)
    assert (core.ending.cause, core.ending.clean, core.ending.messages_out) == (Cause.PEER_CLOSED, True, 1)


def test_a_close_is_answered_after_answer_timeout_and_what_is_unread_is_still_there():
    core = opened(answer_timeout=0.5)
    core.receive(frame(core, "message", "question") + frame(core, "close", 4001, ""), 1.0)
    assert core.deadline == 1.5
    core.tick(1.5)
    assert not core.send("too late", 1.5)
    assert said(core, 1.5) == [Close(4001)]
    assert core.inbox.popleft() == "question"


def test_our_close_answers_that_of_the_peer_and_the_peers_was_the_first():
    core = asked()
    core.close(Close(4002, "ours"), 1.2)
    assert said(core, 1.2) == [Close(4001, "bye")]
    core.eof(2.0)
    assert (core.ending.cause, core.ending.sent) == (Cause.PEER_CLOSED, Close(4001, "bye"))


@pytest.mark.parametrize("why", ["never took a message", "waits", "answer_timeout is 0"])
def test_a_close_with_nothing_pending_before_it_is_answered_at_once(why):
    core = opened(answer_timeout=0 if why == "answer_timeout is 0" else 1.0)
    application = Application(core)
    core.deliver_to(application)
    if why != "never took a message":
        core.receive(frame(core, "message", "question"), 1.0)
        core.inbox.popleft()
        application.waiting = why == "waits"
    core.receive(frame(core, "close", 4001, ""), 1.0)
    core.tick(1.0)
    assert said(core, 1.0) == [Close(4001)]
    assert core.state is State.LINGERING


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("code", [1001, 1012])
def test_a_client_does_not_send_to_a_server_that_stops(client, code):
    core = opened(client)
    core.receive(frame(core, "message", "answer") + frame(core, "close", code, ""), 1.0)
    assert core.is_open is not client
    assert core.inbox.popleft() == "answer"
    # A page that is left says 1001, too, and has its messages handled in order.
    assert core.send("next question", 1.0) is not client


def test_an_end_of_tcp_behind_the_close_waits_for_the_answer_to_leave():
    core = asked()
    core.eof(1.1)
    assert not core.wants_read()
    assert core.send("answer", 1.2)
    core.handled(1.2)
    assert not core.ended
    assert said(core, 1.2) == ["answer", Close(4001, "bye")]
    assert core.ended
    assert (core.ending.clean, core.ending.tcp, core.ending.unsent_bytes) == (True, TcpEnd.FIN, 0)


def test_an_answer_that_does_not_leave_keeps_an_end_of_tcp_for_linger_timeout():
    core = asked(linger_timeout=1)
    core.eof(1.1)
    core.send("answer", 1.2)
    core.handled(1.2)
    core.sent(0, 1.2)
    assert core.deadline == 2.2
    core.tick(2.2)
    assert (core.ended, core.ending.sent, core.ending.tcp) == (True, None, TcpEnd.FIN)
    assert core.ending.unsent_bytes == len(frame(opened(True), "message", "answer"))


def test_answers_that_leave_slowly_keep_an_end_of_tcp_while_they_do_and_for_close_timeout_at_most():
    core = asked(linger_timeout=1, close_timeout=5)
    core.eof(1.1)
    core.send("answer", 1.2)
    core.handled(1.2)
    for now in (2.0, 2.9, 3.8, 4.7):
        core.sent(1, now)
        assert core.deadline == now + 1
    core.sent(1, 5.6)
    assert core.deadline == 6.2
    core.tick(6.2)
    assert (core.ended, core.ending.sent) == (True, None)


def test_a_reset_behind_the_close_ends_it_and_the_close_is_what_ended_it():
    core = asked()
    core.lost(ConnectionResetError(), 1.1)
    assert (core.ended, core.is_open) == (True, False)
    ending = core.ending
    assert (ending.cause, ending.received, ending.code) == (Cause.PEER_CLOSED, Close(4001, "bye"), 4001)
    assert (ending.sent, ending.clean, ending.tcp) == (None, False, TcpEnd.RST)


def test_what_was_accepted_elsewhere_precedes_the_answer_to_a_close():
    core = asked()
    core.deliver_to(Application(core, last_call=lambda: core.send("staged", 1.2)))
    core.handled(1.2)
    assert said(core, 1.2) == ["staged", Close(4001, "bye")]


def test_while_a_close_waits_no_ping_is_sent_and_silence_ends_nothing():
    core = opened(ping_interval=0.1, ping_timeout=0.1, answer_timeout=1.0)
    core.receive(frame(core, "message", "question") + frame(core, "close", 4001, ""), 1.0)
    assert core.deadline == 2.0
    core.tick(1.9)
    assert (core.state, leave(core, 1.9)) == (State.ANSWERING, b"")


# -- the peer's mistakes ------------------------------------------------------------


def test_messages_before_a_broken_rule_may_be_answered_and_then_it_ends_with_the_code():
    core = opened()
    core.receive(frame(core, "message", "good") + b"\x83\x80abcd", 1.0)
    assert core.inbox.popleft() == "good"
    assert core.send("answer", 1.0)
    assert 1.0 < core.deadline <= 1.1
    core.tick(core.deadline)
    assert not core.send("too late", 1.1)
    (answer, close) = said(core)
    assert answer == "answer"
    assert close.code == 1002
    assert close.reason
    assert core.half_close
    core.eof(1.0)
    assert (core.ending.cause, core.ending.initiator) == (Cause.PROTOCOL_ERROR, Initiator.LOCAL)
    assert core.ending.clean is False
    assert isinstance(core.ending.exception, ProtocolError)


def test_a_broken_rule_that_nothing_came_before_ends_it_at_once():
    core = opened()
    core.receive(b"\x83\x80abcd", 1.0)
    assert core.state is State.LINGERING


@pytest.mark.parametrize(
    "event",
    [
        lambda core: core.close(Close(1000, ""), 1.0),
        lambda core: core.eof(1.0),
        lambda core: core.lost(ConnectionResetError(), 1.0),
    ],
)
def test_a_broken_rule_waits_for_an_answer_but_comes_before_whatever_happens_next(event):
    core = opened()
    core.receive(frame(core, "message", "good") + b"\x83\x80abcd", 1.0)
    event(core)
    core.eof(1.0)
    assert core.ending.cause is Cause.PROTOCOL_ERROR


def test_a_broken_rule_while_closing_keeps_our_own_close():
    core = opened()
    core.close(Close(1000, ""), 1.0)
    core.receive(b"\x83\x80abcd", 1.0)
    assert core.state is State.LINGERING
    assert said(core) == [Close(1000, "")]
    core.eof(1.0)
    assert core.ending.cause is Cause.APP_CLOSED


# -- drops --------------------------------------------------------------------------


def test_a_fin_without_a_close_is_a_peer_that_vanished():
    core = opened()
    core.eof(1.0)
    ending = core.ending
    assert (ending.cause, ending.initiator, ending.code, ending.tcp) == (
        Cause.PEER_VANISHED,
        Initiator.NETWORK,
        1006,
        TcpEnd.FIN,
    )
    assert ending.clean is False


def test_a_reset_is_told_with_its_exception():
    core = opened()
    core.lost(RESET, 1.0)
    assert (core.ending.cause, core.ending.tcp, core.ending.exception) == (
        Cause.CONNECTION_RESET,
        TcpEnd.RST,
        RESET,
    )


def test_a_close_that_is_readable_only_after_a_failed_write_is_what_counts():
    core = opened()
    core.send("stream", 1.0)
    core.broken(BrokenPipeError(errno.EPIPE, "pipe"), 1.0)
    assert not core.wants_write()
    assert core.wants_read()
    core.receive(frame(core, "close", 1001, ""), 1.0)
    core.eof(1.0)
    ending = core.ending
    assert (ending.cause, ending.received, ending.sent) == (Cause.PEER_CLOSED, Close(1001, ""), None)
    assert ending.ok
    assert ending.tcp is TcpEnd.RST


def test_a_failed_write_with_nothing_left_to_read_is_what_it_was():
    core = opened(max_queue=1)
    core.receive(frame(core, "message", "1"), 1.0)
    assert not core.wants_read()
    core.broken(RESET, 1.0)
    assert core.wants_read()
    core.receive(frame(core, "message", "2"), 1.0)
    core.eof(1.0)
    assert (core.ending.cause, core.ending.exception) == (Cause.CONNECTION_RESET, RESET)
    assert core.ending.dropped_messages == 1


def test_after_the_end_nothing_changes_any_more():
    core = opened()
    core.eof(1.0)
    ending = core.ending
    core.lost(RESET, 2.0)
    core.receive(frame(core, "message", "x"), 2.0)
    core.tick(1e9)
    core.close(Close(1000, ""), 3.0)
    core.eof(3.0)
    assert core.ending is ending
    assert core.deadline == NEVER
    assert not core.inbox


# -- time ---------------------------------------------------------------------------


def test_a_silent_peer_is_pinged_and_then_cut_with_a_close_if_it_fits():
    core = opened(ping_interval=20, ping_timeout=20)
    assert core.deadline == 20.0
    core.tick(20.0)
    assert isinstance(said(core)[0], Ping)
    core.tick(40.0)
    assert core.abort
    assert said(core) == [Close(1001, Cause.KEEPALIVE_TIMEOUT.meaning)]
    ending = core.ending
    assert (ending.cause, ending.initiator, ending.sent.code, ending.tcp) == (
        Cause.KEEPALIVE_TIMEOUT,
        Initiator.LOCAL,
        1001,
        TcpEnd.ABORTED,
    )
    assert not ending.ok


def test_a_peer_that_talks_and_never_answers_a_ping_costs_one_payload():
    core = opened(ping_interval=20, ping_timeout=20)
    mine = core.ping(b"mine", 0.0)
    for turn in range(1, 100):
        core.receive(frame(core, "message", "still here"), 20.0 * turn + 1)
        core.inbox.clear()
        core.tick(20.0 * turn)
        leave(core)
    assert core.is_open
    assert len(core._unanswered) == 2
    core.receive(frame(core, "pong", core.last_payload), 2000.0)
    assert [payload for payload, _ in core.answered] == [mine, core.last_payload]


def test_a_peer_that_takes_nothing_is_cut_after_write_timeout():
    core = opened(write_timeout=30, ping_interval=None)
    core.send("x", 0.0)
    core.sent(0, 0.0)
    assert core.deadline == 30.0
    core.tick(30.0)
    assert core.abort
    assert (core.ending.cause, core.ending.sent) == (Cause.WRITE_TIMEOUT, None)


def test_a_dead_peer_that_we_were_not_reading_from_is_given_up_by_the_word_of_its_system():
    core = opened(max_queue=1, ping_interval=20.0, ping_timeout=20.0)
    core.receive(frame(core, "message", "x"), 1.0)
    core.tick(20.0, confirmed=15.0)
    assert [type(event) for event in said(core)] == [Ping]
    core.tick(40.0, confirmed=20.1)  # it has the ping
    assert core.is_open
    assert [type(event) for event in said(core)] == [Ping]
    core.tick(60.0, confirmed=20.1)  # but not this one
    assert core.is_open
    core.tick(60.1, confirmed=20.1)
    assert core.ending.cause is Cause.KEEPALIVE_TIMEOUT


def test_a_peer_that_we_were_not_reading_from_is_not_given_up_if_nobody_knows():
    core = opened(max_queue=1, ping_interval=20.0, ping_timeout=20.0)
    core.receive(frame(core, "message", "x"), 1.0)
    for now in (20.0, 40.0, 60.0, 80.0):
        core.tick(now)
    assert core.is_open


def test_a_queue_that_moves_proves_the_peer_alive_though_it_says_nothing():
    core = opened(ping_interval=20, ping_timeout=20)
    core.send("x" * 100, 19.0)
    core.sent(0, 19.0)
    core.tick(20.0)
    core.sent(1, 35.0)
    core.tick(40.0)
    assert core.state is State.OPEN


def test_an_idle_connection_is_closed_if_asked_for():
    core = opened(idle_timeout=60, ping_interval=None)
    core.receive(frame(core, "ping", b""), 30.0)
    core.receive(frame(core, "message", "x"), 40.0)
    core.tick(60.0)
    assert core.state is State.OPEN
    assert core.deadline == 100.0
    core.tick(100.0)
    assert (core.state, said(core)[-1].code) == (State.CLOSING, 1001)
    core.eof(100.0)
    assert core.ending.cause is Cause.IDLE_TIMEOUT


def test_a_server_closes_at_the_maximum_lifetime_and_says_when_to_come_back():
    core = opened(max_lifetime=60, ping_interval=None)
    assert core.deadline == 60.0
    core.tick(60.0)
    (close,) = said(core)
    assert close == Close(1012, "the connection reached its maximum lifetime; retry 0-1s")
    assert RetryAdvice.parse(close.reason) == (0, 1)
    core.eof(60.0)
    assert core.ending.cause is Cause.LIFETIME_REACHED


def test_a_client_closes_at_the_maximum_lifetime_and_advises_nobody():
    core = opened(client=True, max_lifetime=60, ping_interval=None)
    core.tick(60.0)
    assert said(core) == [Close(1012, "the connection reached its maximum lifetime")]


def test_lifetimes_differ_by_up_to_a_tenth_so_that_who_came_together_does_not_leave_together():
    for jitter, end in ((0.0, 60.0), (0.5, 57.0), (0.999, 54.006)):
        core = connection(max_lifetime=60, ping_interval=None)
        core.accept(Codec(False), 0.0, jitter=jitter)
        assert core.deadline == pytest.approx(end)


def test_with_every_timeout_off_there_is_no_deadline():
    core = opened(ping_interval=None, write_timeout=None)
    core.send("x", 0.0)
    core.sent(0, 0.0)
    assert core.deadline == NEVER


# -- the opening ----------------------------------------------------------------------


def test_a_network_that_takes_nothing_for_too_long_is_lost_and_not_reset():
    core = opened()
    core.lost(TimeoutError(errno.ETIMEDOUT, "timed out"), 1.0)
    ending = core.ending
    assert (ending.cause, ending.initiator, ending.tcp) == (
        Cause.NETWORK_ERROR,
        Initiator.NETWORK,
        TcpEnd.TIMEOUT,
    )


def test_an_opening_that_takes_too_long_is_cut():
    core = connection(open_timeout=10)
    assert core.deadline == 10.0
    core.tick(9.9)
    assert core.state is State.OPENING
    core.tick(10.0)
    assert core.abort
    assert (core.ending.cause, core.ending.tcp) == (Cause.HANDSHAKE_FAILED, TcpEnd.TIMEOUT)


def test_sending_the_heads_of_the_opening_gives_it_no_more_time():
    core = connection(client=True, open_timeout=10)
    core.open(b"GET / HTTP/1.1\r\n\r\n")
    leave(core, 5.0)
    assert core.deadline == 10.0


def test_without_open_timeout_the_opening_waits():
    assert connection(open_timeout=None).deadline == NEVER


def test_a_refusal_is_sent_before_tcp_is_ended():
    core = connection(close_timeout=5)
    core.refuse(b"HTTP/1.1 403 Forbidden\r\n\r\n", 1.0)
    assert core.half_close
    assert core.state is State.LINGERING
    assert leave(core, 1.0).startswith(b"HTTP/1.1 403")
    core.receive(b"whatever", 2.0)
    core.eof(2.0)
    assert (core.ending.cause, core.ending.initiator) == (Cause.HANDSHAKE_REJECTED, Initiator.LOCAL)


def test_an_end_of_file_waits_for_the_rest_of_an_answer_and_is_not_read_again_meanwhile():
    core = connection()
    core.refuse(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1.0)
    core.eof(2.0)
    assert (core.ending, core.wants_read()) == (None, False)
    core.sent(5, 3.0)
    assert (core.ending, core.wants_read()) == (None, False)
    core.sent(core.outbox.size, 4.0)
    assert (core.ending.tcp, core.ending.unsent_bytes) == (TcpEnd.FIN, 0)


def test_a_broken_request_is_answered_and_told():
    core = connection()
    error = BadRequest("no Host")
    core.refuse(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1.0, error)
    core.sent(core.outbox.size, 1.5)
    core.eof(2.0)
    assert core.ending.exception is error


def test_a_large_answer_may_take_its_time_as_long_as_it_moves():
    core = connection(close_timeout=5)
    core.refuse(b"x" * 100, 0.0)
    for now in (4.0, 8.0, 12.0):
        core.sent(10, now)
        core.tick(now)
    assert core.state is State.LINGERING
    core.tick(17.0)
    assert core.state is State.ENDED


def test_a_client_gives_the_opening_up():
    core = connection(client=True)
    core.connected = True
    core.open(b"GET / HTTP/1.1\r\n\r\n")
    leave(core)
    error = InvalidHandshake("no accept")
    core.fail_opening(Cause.HANDSHAKE_FAILED, 1.0, error)
    assert core.abort
    assert (core.ending.cause, core.ending.exception) == (Cause.HANDSHAKE_FAILED, error)


def test_a_refused_client_was_ended_by_the_peer():
    core = connection(client=True)
    core.fail_opening(Cause.HANDSHAKE_REJECTED, 1.0, initiator=Initiator.PEER)
    assert core.ending.initiator is Initiator.PEER


def test_without_a_tcp_connection_tcp_did_not_end():
    core = connection(client=True)
    core.lost(OSError(errno.ECONNREFUSED, "refused"), 1.0)
    assert (core.ending.cause, core.ending.tcp) == (Cause.NETWORK_ERROR, TcpEnd.NONE)


def test_the_heads_of_the_opening_are_not_counted():
    core = connection()
    core.open(b"x" * 100)
    core.accept(Codec(False), 0.0)
    leave(core)
    core.send("hi", 0.0)
    leave(core)
    core.eof(1.0)
    assert core.ending.bytes_out == 4


# -- the receiver -------------------------------------------------------------


class Full(Inbox):
    def is_full(self):
        return True


def fill(core):
    core.deliver_to(Receiver(Full()))


def end_delivery(core):
    core.pause(Pause.DELIVERY)


@pytest.mark.parametrize(("pause", "why"), [(fill, Pause.INBOX), (end_delivery, Pause.DELIVERY)])
def test_a_receiver_that_takes_nothing_more_holds_the_peer_back_until_the_connection_closes(pause, why):
    core = opened(max_queue=4)
    pause(core)
    assert not core.wants_read()
    assert core.pauses() == why
    core.close(Close(1000, ""), 1.0)
    assert core.wants_read()
    core.receive(frame(core, "message", "late"), 2.0)
    core.eof(3.0)
    assert core.ending.dropped_messages == 1


def test_it_is_known_what_the_application_has_taken_and_whether_it_has_answered():
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
def test_the_last_call_comes_once_and_what_it_sends_precedes_the_close(cue):
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
    assert said(core)[0] == "last words"
    assert core.ending.messages_out == 1


def test_each_reason_to_pause_reading_is_told():
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


def test_a_server_reads_nothing_while_it_answers_the_request():
    core = connection()
    core.pause(Pause.REQUEST)
    assert core.pauses() == Pause.REQUEST
    core.accept(Codec(False), 1.0)
    assert core.wants_read()
    core = connection()
    core.pause(Pause.REQUEST)
    core.refuse(b"HTTP/1.1 404 Not Found\r\n\r\n", 1.0)
    assert core.wants_read()


def test_a_new_receiver_gets_the_unread_messages_first():
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
