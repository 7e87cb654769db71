"""Time during which this process was stalled does not count against the peer."""

from __future__ import annotations

import pytest

from endwell.ending import Cause, Close, TcpEnd
from endwell.protocol.closing import State
from endwell.protocol.deadline import NEVER
from endwell.wire.codec import Ping
from tests.protocol.core import connection, drain_outbox, frame, opened, sent_frames


def pings(core, now):
    return [type(event) for event in sent_frames(core, now)] == [Ping]


def answer(core, now):
    core.receive(frame(core, "pong", core.last_payload), now)


@pytest.mark.parametrize("client", [True, False])
def test_after_a_stall_only_an_unanswered_new_ping_means_dead(client):
    core = opened(client, ping_interval=20, ping_timeout=20)
    core.tick(20.0)
    assert pings(core, 20.0)
    core.tick(100.0)  # 60 s late
    assert core.is_open
    assert pings(core, 100.0)
    answer(core, 100.1)
    core.tick(120.0)
    assert core.is_open
    assert pings(core, 120.0)


@pytest.mark.parametrize("client", [True, False])
def test_a_peer_that_ignores_the_new_ping_is_dead_and_the_stall_reported(client):
    core = opened(client, ping_interval=20, ping_timeout=20)
    core.tick(20.0)
    core.tick(100.0)
    core.tick(119.9)
    assert core.is_open
    core.tick(120.0)
    ending = core.ending
    assert (ending.cause, ending.stalled) == (Cause.KEEPALIVE_TIMEOUT, 60.0)
    assert "before that, this side was stalled for 60.0 s" in str(ending)


def test_a_slightly_late_tick_is_no_stall():
    core = opened(ping_interval=20, ping_timeout=20)
    core.tick(20.9)
    core.tick(41.8)
    assert (core.ending.cause, core.ending.stalled) == (Cause.KEEPALIVE_TIMEOUT, 0.0)


def test_a_stall_between_two_ticks_counts():
    core = opened(ping_interval=20, ping_timeout=20)
    core.tick(20.0)
    assert pings(core, 20.0)
    core.stalled(20.1, 19.8, 39.9)
    core.tick(40.0)
    assert core.is_open
    assert pings(core, 40.0)
    core.tick(60.0)
    assert (core.ending.cause, core.ending.stalled) == (Cause.KEEPALIVE_TIMEOUT, 19.8)


def test_a_client_pings_at_once_after_a_suspension():
    core = opened(client=True, ping_interval=20, ping_timeout=5)
    core.stalled(3.0, 3600.0, 3.0)  # the clock stands still while the machine is suspended
    assert pings(core, 3.0)
    assert core.deadline == 8.0
    core.tick(8.0)
    assert (core.ending.cause, core.ending.stalled) == (Cause.KEEPALIVE_TIMEOUT, 3600.0)


def test_a_server_does_not_ping_all_clients_at_once_after_a_suspension():
    core = opened(ping_interval=20, ping_timeout=5)
    core.stalled(3.0, 7.0, 10.0)
    assert not core.outbox.size
    assert core.deadline == 20.0


def test_a_client_without_keepalive_does_not_ping_after_a_suspension():
    core = opened(client=True, ping_interval=None)
    core.stalled(3.0, 3600.0, 3.0)
    assert not core.outbox.size
    assert core.deadline == NEVER


def test_data_after_the_stall_clears_it_from_the_ending():
    core = opened(ping_interval=20, ping_timeout=20)
    core.tick(20.0)
    core.tick(100.0)
    answer(core, 100.1)
    core.tick(120.0)
    core.tick(140.1)
    assert (core.ending.cause, core.ending.stalled) == (Cause.KEEPALIVE_TIMEOUT, 0.0)


def test_stalls_add_up_until_data_arrives():
    core = opened(ping_interval=20, ping_timeout=20)
    core.receive(frame(core, "message", "x"), 1.0)
    core.inbox.clear()
    core.stalled(2.0, 3.0, 5.0)
    core.receive(frame(core, "message", "x"), 6.0)
    core.stalled(7.0, 2.0, 9.0)
    core.stalled(10.0, 2.5, 12.5)
    core.lost(ConnectionResetError(), 13.0)
    assert core.ending.stalled == 4.5


def test_a_stall_seen_by_two_clocks_counts_once():
    core = opened(ping_interval=20, ping_timeout=20)
    core.tick(70.0)
    core.stalled(21.0, 49.1, 70.1)
    assert core.deadline == 90.0
    core.stalled(69.0, 4.0, 73.0)  # of which 3 s are another stall
    core.tick(90.0)
    core.tick(110.0)
    assert (core.ending.cause, core.ending.stalled) == (Cause.KEEPALIVE_TIMEOUT, 53.0)


def test_write_timeout_is_extended_by_the_stall():
    core = opened(write_timeout=30, ping_interval=None)
    core.send("x", 0.0)
    core.sent(0, 0.0)
    core.stalled(5.0, 60.0, 65.0)
    assert core.deadline == 90.0
    core.tick(90.0)
    assert (core.ending.cause, core.ending.stalled) == (Cause.WRITE_TIMEOUT, 60.0)


def test_close_timeout_and_linger_timeout_are_extended_by_the_stall():
    core = opened(close_timeout=10, linger_timeout=10, ping_interval=None)
    core.close(Close(1000, ""), 0.0)
    drain_outbox(core)
    core.stalled(5.0, 60.0, 65.0)
    assert (core.state, core.deadline) == (State.CLOSING, 70.0)
    core.receive(frame(core, "close", 1000, ""), 66.0)
    core.stalled(67.0, 60.0, 127.0)
    assert (core.state, core.deadline) == (State.LINGERING, 136.0)
    core.tick(136.0)
    assert (core.ending.received, core.ending.tcp) == (Close(1000, ""), TcpEnd.TIMEOUT)


@pytest.mark.parametrize("client", [True, False])
def test_open_timeout_is_extended_by_the_stall(client):
    core = connection(client, open_timeout=10)
    core.stalled(5.0, 60.0, 65.0)
    assert (core.state, core.deadline) == (State.OPENING, 70.0)
    core.tick(70.0)
    assert (core.ending.cause, core.ending.stalled) == (Cause.HANDSHAKE_FAILED, 60.0)


def test_a_suspension_shortens_no_timeout():
    core = opened(close_timeout=10, ping_interval=None)
    core.close(Close(1000, ""), 0.0)
    core.stalled(5.0, 3600.0, 5.0)
    assert core.deadline == 10.0


def test_a_loop_that_is_always_late_detects_a_dead_peer():
    for client in (True, False):
        core = opened(client, ping_interval=20, ping_timeout=20, write_timeout=None)
        now = 0.0
        while core.is_open and now < 1000.0:
            core.stalled(now + 1.0, 1.5, now + 2.5)  # one tick each time
            now += 2.5
            core.tick(now)
        assert core.ending.cause is Cause.KEEPALIVE_TIMEOUT
        assert now < 200.0


def test_a_handshake_without_a_deadline_has_none_after_a_stall():
    core = connection(open_timeout=None)
    core.stalled(1.0, 60.0, 61.0)
    assert core.deadline == NEVER


def test_application_limits_are_not_extended_by_a_stall():
    core = opened(idle_timeout=60, ping_interval=None)
    core.tick(600.0)
    assert core.state is State.CLOSING
    core = opened(max_lifetime=60, ping_interval=None)
    core.tick(600.0)
    assert core.state is State.CLOSING


def test_a_protocol_error_during_a_stall_is_still_an_error():
    core = opened()
    core.receive(b"\x83\x80\0\0\0\0", 1.0)
    core.stalled(1.0, 60.0, 61.0)
    core.tick(61.0)
    assert core.state is State.LINGERING
    core.eof(61.0)
    assert core.ending.cause is Cause.PROTOCOL_ERROR


def test_a_stall_after_the_end_changes_nothing():
    core = opened()
    core.eof(1.0)
    core.stalled(2.0, 60.0, 62.0)
    assert (core.state, core.deadline, core.ending.stalled) == (State.ENDED, NEVER, 0.0)
