from __future__ import annotations

import errno
from itertools import product

import pytest

from endwell.ending import Cause, Close, Initiator, TcpEnd
from endwell.errors import BadRequest, InvalidHandshake, ProtocolError
from endwell.options import Options
from endwell.protocol.closing import (
    IGNORED,
    TABLE,
    Closing,
    Cue,
    Do,
    State,
    WindowClosed,
    cause_of,
    tcp_end_of,
)
from endwell.protocol.deadline import NEVER
from endwell.protocol.liveness import Verdict
from endwell.wire.codec import Codec
from tests.protocol.core import RESET, Application, connection, drain_outbox, frame, opened, sent_frames


def test_every_state_and_cue_is_handled_or_ignored_never_both():
    pairs = set(product(State, Cue))
    assert set(TABLE) | IGNORED == pairs
    assert not set(TABLE) & IGNORED


def test_no_cue_leaves_the_state_ended():
    assert all((State.ENDED, cue) in IGNORED for cue in Cue)


def test_every_state_is_reachable_and_can_reach_ended():
    following = {state: {row.state for (start, _), row in TABLE.items() if start is state} for state in State}
    reached = {State.OPENING}
    for _ in State:
        reached |= {target for state in reached for target in following[state]}
    assert reached == set(State)
    for state in State:
        ahead = {state}
        for _ in State:
            ahead |= {target for each in ahead for target in following[each]}
        assert State.ENDED in ahead


def test_each_closing_state_has_a_deadline():
    for row in TABLE.values():
        if row.state in {State.CLOSING, State.LINGERING}:
            assert Do.ARM in row.do
        if row.state is State.ANSWERING:
            assert Do.ARM_ANSWER in row.do or Do.HOLD_EOF in row.do
    # DISCARDING has the rest of the time of LINGERING.
    assert {state for (state, _), row in TABLE.items() if row.state is State.DISCARDING} == {State.LINGERING}


def test_a_lost_connection_ends_from_every_state():
    for state in set(State) - {State.ENDED}:
        assert TABLE[state, Cue.LOST].state is State.ENDED
        # An end of TCP after a Close waits for the answer to the Close.
        assert TABLE[state, Cue.EOF].state is (state if state is State.ANSWERING else State.ENDED)


def test_every_path_through_the_table_queues_at_most_one_close():
    """Follow every path of cues and check that none sends two Closes."""

    def closes(row_do):
        return sum(do in {Do.SEND_CLOSE, Do.ECHO_CLOSE} for do in row_do)

    paths = [(State.OPENING, 0)]
    for _ in range(6):
        paths = list(
            {
                (TABLE[state, cue].state, count + closes(TABLE[state, cue].do))
                for state, count in paths
                for cue in Cue
                if (state, cue) in TABLE
            }
        )
        assert all(count <= 1 for _, count in paths)


@pytest.mark.parametrize(
    ("exc", "tls", "cause", "tcp"),
    [
        (ConnectionResetError(), False, Cause.CONNECTION_RESET, TcpEnd.RST),
        (ConnectionResetError(), True, Cause.CONNECTION_RESET, TcpEnd.RST),
        (BrokenPipeError(), False, Cause.CONNECTION_RESET, TcpEnd.RST),
        (ConnectionAbortedError(), False, Cause.CONNECTION_RESET, TcpEnd.ABORTED),
        (OSError(errno.ETIMEDOUT, "x"), False, Cause.NETWORK_ERROR, TcpEnd.TIMEOUT),
        (OSError(errno.EHOSTUNREACH, "x"), False, Cause.NETWORK_ERROR, TcpEnd.ERROR),
        (OSError(1, "bad record"), True, Cause.TLS_ERROR, TcpEnd.ERROR),
        (WindowClosed(errno.ETIMEDOUT, "x"), True, Cause.WRITE_TIMEOUT, TcpEnd.TIMEOUT),
    ],
)
def test_an_os_error_determines_the_cause_and_the_tcp_end(exc, tls, cause, tcp):
    assert cause_of(exc, tls) is cause
    assert tcp_end_of(Cue.LOST, exc) is tcp


def test_the_tcp_end_follows_from_the_last_cue():
    assert tcp_end_of(Cue.EOF, None) is TcpEnd.FIN
    assert tcp_end_of(Cue.LINGERED, None) is TcpEnd.OPEN
    assert tcp_end_of(Cue.GONE, None) is TcpEnd.UNKNOWN
    assert tcp_end_of(Cue.TIME_UP, None) is TcpEnd.TIMEOUT
    assert tcp_end_of(Cue.SILENT, None) is tcp_end_of(Cue.STUCK, None) is TcpEnd.ABORTED


@pytest.mark.parametrize(
    "cue", [cue for state, cue in TABLE if state is State.OPENING and cue is not Cue.ACCEPTED]
)
def test_the_machine_follows_the_table(cue):
    row = TABLE[State.OPENING, cue]
    machine = Closing(False, Options(), 0.0)
    machine.cue(cue, 1.0, Cause.HANDSHAKE_FAILED)
    assert (machine.state, machine.ended) == (row.state, row.state is State.ENDED)
    assert machine.abort is (Do.ABORT in row.do)
    assert machine.half_close is (Do.FIN in row.do)


@pytest.mark.parametrize(
    ("verdict", "cause", "state"),
    [
        (Verdict.SILENT, Cause.KEEPALIVE_TIMEOUT, State.ENDED),
        (Verdict.STUCK, Cause.WRITE_TIMEOUT, State.ENDED),
        (Verdict.EXPIRED, Cause.LIFETIME_REACHED, State.CLOSING),
        (Verdict.IDLE, Cause.IDLE_TIMEOUT, State.CLOSING),
        (Verdict.UNAUTHORIZED, Cause.AUTH_EXPIRED, State.CLOSING),
    ],
)
def test_each_verdict_of_liveness_has_its_cause_and_close(verdict, cause, state):
    core = opened()
    core.end_for(verdict, 1.0)
    assert core.state is state
    assert [close.code for close in sent_frames(core)] == [cause.close_code]
    core.lost(ConnectionResetError("x"), 2.0)
    assert core.ending.cause is cause


def test_tcp_that_ended_in_an_unknown_way_is_a_vanished_peer():
    core = opened()
    core.gone(1.0)
    assert (core.ending.cause, core.ending.tcp) == (Cause.PEER_VANISHED, TcpEnd.UNKNOWN)
    after_eof = opened()
    after_eof.close(Close(1000), 0.5)
    after_eof.eof(1.0)
    first = after_eof.ending
    after_eof.gone(2.0)
    assert after_eof.ending is first


@pytest.mark.parametrize(
    ("end", "tcp"),
    [
        (lambda core: core.tick(10.0), TcpEnd.TIMEOUT),
        (lambda core: core.eof(2.0), TcpEnd.FIN),
        (lambda core: core.lost(RESET, 2.0), TcpEnd.RST),
    ],
)
def test_a_refusal_that_is_incomplete_is_the_cause_of_any_end(end, tcp):
    core = connection(client=True, open_timeout=10.0)
    core.connected = True
    core.refused()
    assert not core.ended
    end(core)
    ending = core.ending
    assert (ending.cause, ending.initiator, ending.tcp) == (
        Cause.HANDSHAKE_REJECTED,
        Initiator.PEER,
        tcp,
    )


def test_the_first_cause_is_kept():
    machine = Closing(False, Options(close_timeout=10), 0.0)
    machine.cue(Cue.REFUSED, 1.0, Cause.HANDSHAKE_REJECTED)
    assert (machine.state, machine.deadline) == (State.LINGERING, 11.0)
    machine.lost(ConnectionResetError("x"), 2.0)
    ending = machine.ending
    assert (ending.cause, ending.initiator) == (Cause.HANDSHAKE_REJECTED, Initiator.LOCAL)
    assert (ending.tcp, ending.duration) == (TcpEnd.RST, 2.0)
    machine.cue(Cue.EOF, 3.0, Cause.PEER_VANISHED)
    assert machine.ending is ending


def test_an_ignored_cue_changes_nothing():
    machine = Closing(False, Options(open_timeout=10), 0.0)
    for state, cue in IGNORED:
        if state is State.OPENING:
            machine.cue(cue, 1.0, Cause.APP_CLOSED)
    assert (machine.state, machine.deadline, machine.ending) == (State.OPENING, 10.0, None)


# -- closing ----------------------------------------------------------------------


def test_our_close_is_answered_and_then_the_server_ends_tcp():
    core = opened()
    core.close(Close(3001, "bye"), 1.0)
    assert core.state is State.CLOSING
    assert not core.half_close
    assert sent_frames(core) == [Close(3001, "bye")]
    core.receive(frame(core, "close", 3001, "bye"), 1.5)
    assert core.state is State.LINGERING
    assert core.half_close
    core.eof(2.0)
    ending = core.ending
    assert (ending.cause, ending.initiator, ending.clean) == (Cause.APP_CLOSED, Initiator.LOCAL, True)
    assert ending.sent == ending.received == Close(3001, "bye")
    assert (ending.tcp, ending.duration, ending.opened_at, ending.ok) == (TcpEnd.FIN, 2.0, 1e9, False)


@pytest.mark.parametrize("close", [Close(), Close(1000), Close(1001, "away"), Close(4999, "x" * 123)])
def test_the_peers_close_is_echoed_with_code_and_reason(close):
    core = opened()
    core.receive(frame(core, "close", close.code, close.reason), 1.0)
    assert core.state is State.LINGERING
    assert sent_frames(core) == [close]
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


def test_after_simultaneous_closes_the_first_cue_is_the_cause():
    core = opened()
    core.close(Close(1000, "mine"), 1.0)
    core.receive(frame(core, "close", 1001, "theirs"), 1.0)
    assert sent_frames(core) == [Close(1000, "mine")]
    core.eof(2.0)
    assert (core.ending.cause, core.ending.clean, core.ending.code) == (Cause.APP_CLOSED, True, 1000)
    assert core.ending.received == Close(1001, "theirs")


def test_closing_twice_changes_nothing():
    core = opened()
    core.close(Close(1000, "first"), 1.0)
    core.close(Close(4000, "second"), 1.0)
    assert sent_frames(core) == [Close(1000, "first")]


def test_messages_queued_before_the_close_are_sent_before_it():
    core = opened()
    core.send("a", 0.0)
    core.close(Close(1000, ""), 0.0)
    assert sent_frames(core) == ["a", Close(1000, "")]


def test_a_close_still_queued_counts_as_not_sent():
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


def test_data_after_a_close_of_the_peer_is_discarded():
    core = opened()
    core.receive(frame(core, "close", 1000, "") + frame(core, "message", "x"), 1.0)
    core.receive(b"\xff" * 100, 1.0)
    assert not core.inbox
    assert core.state is State.LINGERING


def test_a_peer_has_close_timeout_to_answer_our_close():
    core = opened(close_timeout=3)
    core.close(Close(1000, ""), 1.0)
    drain_outbox(core)
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


def test_a_peer_that_keeps_tcp_open_ends_after_linger_timeout():
    core = opened(close_timeout=3, linger_timeout=1)
    core.receive(frame(core, "close", 1000, ""), 1.0)
    drain_outbox(core, 1.5)
    assert core.deadline == 2.5  # from the moment when our Close was written
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


def test_events_after_a_reported_ending_do_not_change_it():
    core = opened(close_timeout=30, linger_timeout=1)
    core.receive(frame(core, "close", 1000, ""), 1.0)
    drain_outbox(core, 1.0)
    core.tick(2.0)
    core.stalled(2.0, 5.0, 7.0)
    core.lost(RESET, 7.0)
    assert core.ended
    assert (core.ending.tcp, core.ending.exception, core.ending.stalled) == (TcpEnd.OPEN, None, 0.0)


def test_a_client_aborts_after_linger_timeout_if_the_server_keeps_tcp_open():
    core = opened(True, close_timeout=3, linger_timeout=1)
    core.receive(frame(core, "close", 1000, ""), 1.0)
    drain_outbox(core, 1.0)
    core.tick(2.0)
    assert (core.ended, core.ending.clean, core.ending.tcp) == (True, True, TcpEnd.TIMEOUT)


def test_a_close_that_cannot_be_sent_ends_after_close_timeout():
    core = opened(close_timeout=3, linger_timeout=1)
    core.receive(frame(core, "close", 1000, ""), 1.0)
    core.sent(0, 1.0)  # the kernel accepts nothing
    assert core.deadline == 4.0
    core.tick(4.0)
    assert (core.ending.sent, core.ending.clean, core.ending.tcp) == (None, False, TcpEnd.TIMEOUT)


# -- a Close behind messages --------------------------------------------------------


def closing_behind_message(client=False, **options):
    """A connection whose application has received a message that was followed by a Close."""
    core = opened(client, ping_interval=None, **options)
    core.deliver_to(Application(core))
    core.receive(frame(core, "message", "question") + frame(core, "close", 4001, "bye"), 1.0)
    assert core.inbox.popleft() == "question"
    assert (core.state, core.is_open, core.answering) == (State.ANSWERING, True, True)
    assert core.received == Close(4001, "bye")
    return core


@pytest.mark.parametrize("client", [False, True])
def test_a_close_is_answered_when_the_application_receives_again(client):
    core = closing_behind_message(client)
    assert drain_outbox(core, 1.0) == b""
    assert core.send("answer", 1.5)
    core.handled(1.5)
    assert not core.is_open
    assert sent_frames(core, 1.5) == ["answer", Close(4001, "bye")]
    core.eof(2.0)
    assert (core.ending.cause, core.ending.clean, core.ending.messages_out) == (Cause.PEER_CLOSED, True, 1)


def test_after_answer_timeout_the_close_is_answered_and_unread_messages_stay():
    core = opened(answer_timeout=0.5)
    core.receive(frame(core, "message", "question") + frame(core, "close", 4001, ""), 1.0)
    assert core.deadline == 1.5
    core.tick(1.5)
    assert not core.send("too late", 1.5)
    assert sent_frames(core, 1.5) == [Close(4001)]
    assert core.inbox.popleft() == "question"


def test_our_close_after_the_peers_is_its_answer():
    core = closing_behind_message()
    core.close(Close(4002, "ours"), 1.2)
    assert sent_frames(core, 1.2) == [Close(4001, "bye")]
    core.eof(2.0)
    assert (core.ending.cause, core.ending.sent) == (Cause.PEER_CLOSED, Close(4001, "bye"))


@pytest.mark.parametrize("why", ["never took a message", "waits", "answer_timeout is 0"])
def test_a_close_without_pending_messages_is_answered_at_once(why):
    core = opened(answer_timeout=0 if why == "answer_timeout is 0" else 1.0)
    application = Application(core)
    core.deliver_to(application)
    if why != "never took a message":
        core.receive(frame(core, "message", "question"), 1.0)
        core.inbox.popleft()
        application.waiting = why == "waits"
    core.receive(frame(core, "close", 4001, ""), 1.0)
    core.tick(1.0)
    assert sent_frames(core, 1.0) == [Close(4001)]
    assert core.state is State.LINGERING


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("code", [1001, 1012])
def test_a_client_does_not_send_to_a_server_that_stops(client, code):
    core = opened(client)
    core.receive(frame(core, "message", "answer") + frame(core, "close", code, ""), 1.0)
    assert core.is_open is not client
    assert core.inbox.popleft() == "answer"
    # 1001 from a client is a page that was left, whose messages are handled in order.
    assert core.send("next question", 1.0) is not client


def test_an_end_of_tcp_after_a_close_waits_for_the_answer():
    core = closing_behind_message()
    core.eof(1.1)
    assert not core.wants_read()
    assert core.send("answer", 1.2)
    core.handled(1.2)
    assert not core.ended
    assert sent_frames(core, 1.2) == ["answer", Close(4001, "bye")]
    assert core.ended
    assert (core.ending.clean, core.ending.tcp, core.ending.unsent_bytes) == (True, TcpEnd.FIN, 0)


def test_an_unsent_answer_delays_an_end_of_tcp_for_linger_timeout():
    core = closing_behind_message(linger_timeout=1)
    core.eof(1.1)
    core.send("answer", 1.2)
    core.handled(1.2)
    core.sent(0, 1.2)
    assert core.deadline == 2.2
    core.tick(2.2)
    assert (core.ended, core.ending.sent, core.ending.tcp) == (True, None, TcpEnd.FIN)
    assert core.ending.unsent_bytes == len(frame(opened(True), "message", "answer"))


def test_slow_answers_delay_an_end_of_tcp_for_at_most_close_timeout():
    core = closing_behind_message(linger_timeout=1, close_timeout=5)
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


def test_a_reset_after_a_close_ends_with_the_close_as_cause():
    core = closing_behind_message()
    core.lost(ConnectionResetError(), 1.1)
    assert (core.ended, core.is_open) == (True, False)
    ending = core.ending
    assert (ending.cause, ending.received, ending.code) == (Cause.PEER_CLOSED, Close(4001, "bye"), 4001)
    assert (ending.sent, ending.clean, ending.tcp) == (None, False, TcpEnd.RST)


def test_messages_of_the_driver_precede_the_answer_to_a_close():
    core = closing_behind_message()
    core.deliver_to(Application(core, last_call=lambda: core.send("staged", 1.2)))
    core.handled(1.2)
    assert sent_frames(core, 1.2) == ["staged", Close(4001, "bye")]


def test_keepalive_is_off_while_a_close_waits_for_its_answer():
    core = opened(ping_interval=0.1, ping_timeout=0.1, answer_timeout=1.0)
    core.receive(frame(core, "message", "question") + frame(core, "close", 4001, ""), 1.0)
    assert core.deadline == 2.0
    core.tick(1.9)
    assert (core.state, drain_outbox(core, 1.9)) == (State.ANSWERING, b"")


# -- protocol errors of the peer ----------------------------------------------------


def test_messages_before_a_protocol_error_may_be_answered_first():
    core = opened()
    core.receive(frame(core, "message", "good") + b"\x83\x80abcd", 1.0)
    assert core.inbox.popleft() == "good"
    assert core.send("answer", 1.0)
    assert 1.0 < core.deadline <= 1.1
    core.tick(core.deadline)
    assert not core.send("too late", 1.1)
    (answer, close) = sent_frames(core)
    assert answer == "answer"
    assert close.code == 1002
    assert close.reason
    assert core.half_close
    core.eof(1.0)
    assert (core.ending.cause, core.ending.initiator) == (Cause.PROTOCOL_ERROR, Initiator.LOCAL)
    assert core.ending.clean is False
    assert isinstance(core.ending.exception, ProtocolError)


def test_a_protocol_error_without_pending_messages_ends_at_once():
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
def test_a_pending_protocol_error_precedes_any_later_event(event):
    core = opened()
    core.receive(frame(core, "message", "good") + b"\x83\x80abcd", 1.0)
    event(core)
    core.eof(1.0)
    assert core.ending.cause is Cause.PROTOCOL_ERROR


def test_a_protocol_error_while_closing_keeps_our_close():
    core = opened()
    core.close(Close(1000, ""), 1.0)
    core.receive(b"\x83\x80abcd", 1.0)
    assert core.state is State.LINGERING
    assert sent_frames(core) == [Close(1000, "")]
    core.eof(1.0)
    assert core.ending.cause is Cause.APP_CLOSED


# -- drops --------------------------------------------------------------------------


def test_a_fin_without_a_close_is_peer_vanished():
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


def test_the_ending_of_a_reset_has_its_exception():
    core = opened()
    core.lost(RESET, 1.0)
    assert (core.ending.cause, core.ending.tcp, core.ending.exception) == (
        Cause.CONNECTION_RESET,
        TcpEnd.RST,
        RESET,
    )


def test_a_close_readable_after_a_failed_write_is_the_cause():
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


def test_a_failed_write_with_no_unread_data_is_a_reset():
    core = opened(max_queue=1)
    core.receive(frame(core, "message", "1"), 1.0)
    assert not core.wants_read()
    core.broken(RESET, 1.0)
    assert core.wants_read()
    core.receive(frame(core, "message", "2"), 1.0)
    core.eof(1.0)
    assert (core.ending.cause, core.ending.exception) == (Cause.CONNECTION_RESET, RESET)
    assert core.ending.dropped_messages == 1


def test_no_event_changes_an_ended_connection():
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


# -- the opening ----------------------------------------------------------------------


def test_etimedout_is_a_lost_network_and_not_a_reset():
    core = opened()
    core.lost(TimeoutError(errno.ETIMEDOUT, "timed out"), 1.0)
    ending = core.ending
    assert (ending.cause, ending.initiator, ending.tcp) == (
        Cause.NETWORK_ERROR,
        Initiator.NETWORK,
        TcpEnd.TIMEOUT,
    )


def test_a_handshake_beyond_open_timeout_is_aborted():
    core = connection(open_timeout=10)
    assert core.deadline == 10.0
    core.tick(9.9)
    assert core.state is State.OPENING
    core.tick(10.0)
    assert core.abort
    assert (core.ending.cause, core.ending.tcp) == (Cause.HANDSHAKE_FAILED, TcpEnd.TIMEOUT)


def test_sending_the_heads_does_not_extend_open_timeout():
    core = connection(client=True, open_timeout=10)
    core.open(b"GET / HTTP/1.1\r\n\r\n")
    drain_outbox(core, 5.0)
    assert core.deadline == 10.0


def test_without_open_timeout_the_handshake_has_no_deadline():
    assert connection(open_timeout=None).deadline == NEVER


def test_a_refusal_is_sent_before_tcp_is_ended():
    core = connection(close_timeout=5)
    core.refuse(b"HTTP/1.1 403 Forbidden\r\n\r\n", 1.0)
    assert core.half_close
    assert core.state is State.LINGERING
    assert drain_outbox(core, 1.0).startswith(b"HTTP/1.1 403")
    core.receive(b"whatever", 2.0)
    core.eof(2.0)
    assert (core.ending.cause, core.ending.initiator) == (Cause.HANDSHAKE_REJECTED, Initiator.LOCAL)


def test_an_eof_waits_until_the_response_is_sent():
    core = connection()
    core.refuse(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1.0)
    core.eof(2.0)
    assert (core.ending, core.wants_read()) == (None, False)
    core.sent(5, 3.0)
    assert (core.ending, core.wants_read()) == (None, False)
    core.sent(core.outbox.size, 4.0)
    assert (core.ending.tcp, core.ending.unsent_bytes) == (TcpEnd.FIN, 0)


def test_an_invalid_request_is_answered_and_reported():
    core = connection()
    error = BadRequest("no Host")
    core.refuse(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1.0, error)
    core.sent(core.outbox.size, 1.5)
    core.eof(2.0)
    assert core.ending.exception is error


def test_a_large_response_may_be_slow_while_it_progresses():
    core = connection(close_timeout=5)
    core.refuse(b"x" * 100, 0.0)
    for now in (4.0, 8.0, 12.0):
        core.sent(10, now)
        core.tick(now)
    assert core.state is State.LINGERING
    core.tick(17.0)
    assert core.state is State.ENDED


def test_a_client_may_abandon_the_handshake():
    core = connection(client=True)
    core.connected = True
    core.open(b"GET / HTTP/1.1\r\n\r\n")
    drain_outbox(core)
    error = InvalidHandshake("no accept")
    core.fail_opening(Cause.HANDSHAKE_FAILED, 1.0, error)
    assert core.abort
    assert (core.ending.cause, core.ending.exception) == (Cause.HANDSHAKE_FAILED, error)


def test_the_ending_of_a_refused_client_has_initiator_peer():
    core = connection(client=True)
    core.fail_opening(Cause.HANDSHAKE_REJECTED, 1.0, initiator=Initiator.PEER)
    assert core.ending.initiator is Initiator.PEER


def test_without_a_tcp_connection_the_tcp_end_is_none():
    core = connection(client=True)
    core.lost(OSError(errno.ECONNREFUSED, "refused"), 1.0)
    assert (core.ending.cause, core.ending.tcp) == (Cause.NETWORK_ERROR, TcpEnd.NONE)


def test_the_heads_of_the_handshake_are_not_counted():
    core = connection()
    core.open(b"x" * 100)
    core.accept(Codec(False), 0.0)
    drain_outbox(core)
    core.send("hi", 0.0)
    drain_outbox(core)
    core.eof(1.0)
    assert core.ending.bytes_out == 4
