from __future__ import annotations

import errno
from itertools import product

import pytest

from endwell.ending import Cause, Initiator, TcpEnd
from endwell.options import Options
from endwell.protocol.closing import IGNORED, TABLE, Closing, Cue, Do, State, cause_of, tcp_end_of
from endwell.protocol.liveness import Verdict
from tests.protocol.core import opened, said


def test_every_pair_of_a_state_and_a_cue_is_in_the_table_or_is_ignored_and_never_both():
    pairs = set(product(State, Cue))
    assert set(TABLE) | IGNORED == pairs
    assert not set(TABLE) & IGNORED


def test_nothing_leads_out_of_ended():
    assert all((State.ENDED, cue) in IGNORED for cue in Cue)


def test_every_state_can_be_reached_and_every_state_can_reach_the_end():
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


def test_each_state_on_the_way_out_has_a_deadline():
    for row in TABLE.values():
        if row.state in {State.CLOSING, State.LINGERING}:
            assert Do.ARM in row.do
        if row.state is State.ANSWERING:
            assert Do.ARM_ANSWER in row.do or Do.HOLD_EOF in row.do
    # DISCARDING has what is left of the time of LINGERING.
    assert {state for (state, _), row in TABLE.items() if row.state is State.DISCARDING} == {State.LINGERING}


def test_a_lost_connection_ends_from_every_state():
    for state in set(State) - {State.ENDED}:
        assert TABLE[state, Cue.LOST].state is State.ENDED
        # One that comes behind a Close waits for the answer to that.
        assert TABLE[state, Cue.EOF].state is (state if state is State.ANSWERING else State.ENDED)


def test_at_most_one_close_is_queued_on_any_way_through_the_table():
    """Follow every path of cues; a path that closes twice would show here."""

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
    ],
)
def test_an_error_of_the_system_names_its_cause_and_how_tcp_ended(exc, tls, cause, tcp):
    assert cause_of(exc, tls) is cause
    assert tcp_end_of(Cue.LOST, exc) is tcp


def test_how_tcp_ended_follows_from_the_last_cue():
    assert tcp_end_of(Cue.EOF, None) is TcpEnd.FIN
    assert tcp_end_of(Cue.LINGERED, None) is TcpEnd.OPEN
    assert tcp_end_of(Cue.TIME_UP, None) is TcpEnd.TIMEOUT
    assert tcp_end_of(Cue.SILENT, None) is tcp_end_of(Cue.STUCK, None) is TcpEnd.ABORTED


@pytest.mark.parametrize(
    "cue", [cue for state, cue in TABLE if state is State.OPENING and cue is not Cue.ACCEPTED]
)
def test_a_machine_goes_where_the_table_says(cue):
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
    ],
)
def test_what_liveness_decides_has_its_cause_and_its_close(verdict, cause, state):
    core = opened()
    core.end_for(verdict, 1.0)
    assert core.state is state
    assert [close.code for close in said(core)] == [cause.close_code]
    core.lost(ConnectionResetError("x"), 2.0)
    assert core.ending.cause is cause


def test_the_first_cause_stays():
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
