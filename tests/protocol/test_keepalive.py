from __future__ import annotations

import pytest

from endwell.protocol.deadline import NEVER
from endwell.protocol.keepalive import Keepalive, Verdict


def started(interval=20.0, timeout=20.0, now=100.0):
    keepalive = Keepalive(interval, timeout)
    keepalive.start(now)
    return keepalive


def test_without_an_interval_there_is_nothing_to_wait_for():
    keepalive = started(interval=None)
    assert keepalive.deadline == NEVER
    assert keepalive.tick(1e9, not_reading=False) is Verdict.NOTHING


def test_a_ping_is_due_after_the_interval_and_not_before():
    keepalive = started()
    assert keepalive.deadline == 120.0
    assert keepalive.tick(119.9, not_reading=False) is Verdict.NOTHING
    assert keepalive.tick(120.0, not_reading=False) is Verdict.PING


def test_a_peer_that_says_nothing_is_given_up_after_the_timeout():
    keepalive = started(20.0, 5.0)
    keepalive.tick(120.0, not_reading=False)
    assert keepalive.deadline == 125.0
    assert keepalive.tick(124.9, not_reading=False) is Verdict.NOTHING
    assert keepalive.tick(125.0, not_reading=False) is Verdict.SILENT


def test_whatever_is_heard_after_the_ping_proves_the_peer_alive():
    keepalive = started(20.0, 5.0)
    keepalive.tick(120.0, not_reading=False)
    keepalive.last_heard = 121.0
    assert keepalive.tick(125.0, not_reading=False) is Verdict.NOTHING
    assert keepalive.deadline == 140.0
    assert keepalive.tick(140.0, not_reading=False) is Verdict.PING


def test_a_peer_that_was_heard_before_the_ping_has_interval_and_timeout_from_then_on():
    keepalive = started(20.0, 5.0)
    keepalive.last_heard = 119.0
    keepalive.tick(120.0, not_reading=False)
    assert keepalive.tick(125.0, not_reading=False) is Verdict.NOTHING
    assert keepalive.deadline == 144.0
    assert keepalive.tick(144.0, not_reading=False) is Verdict.SILENT


def test_a_busy_peer_that_answers_nothing_and_pings_as_seldom_as_we_do_is_not_given_up():
    keepalive = started()
    now, heard = 100.0, 100.0
    while now < 10_000.0:
        now = min(keepalive.deadline, heard + 20.02)
        if now == heard + 20.02:
            heard = keepalive.last_heard = now
        else:
            assert keepalive.tick(now, not_reading=False) is not Verdict.SILENT


def test_pings_keep_their_interval_though_the_timeout_is_longer():
    keepalive = started(1.0, 20.0)
    assert keepalive.tick(101.0, not_reading=False) is Verdict.PING
    keepalive.last_heard = 101.5
    assert keepalive.tick(102.0, not_reading=False) is Verdict.PING


def test_an_unanswered_ping_is_not_repeated_while_it_may_still_be_answered():
    keepalive = started(1.0, 20.0)
    keepalive.tick(101.0, not_reading=False)
    assert keepalive.tick(102.0, not_reading=False) is Verdict.NOTHING
    assert keepalive.deadline == 121.0
    assert keepalive.tick(121.0, not_reading=False) is Verdict.SILENT


def test_without_a_timeout_nobody_is_given_up():
    keepalive = started(20.0, None)
    for now in (120.0, 140.0, 160.0):
        assert keepalive.tick(now, not_reading=False) is Verdict.PING


def test_after_a_standstill_of_ours_only_a_fresh_ping_decides():
    keepalive = started(20.0, 5.0)
    keepalive.tick(120.0, not_reading=False)
    assert keepalive.stalled(10.0)
    assert keepalive.deadline == 140.0
    assert keepalive.tick(140.0, not_reading=False) is Verdict.PING
    assert keepalive.tick(145.0, not_reading=False) is Verdict.SILENT


def test_after_a_standstill_it_pings_at_once_if_a_ping_is_overdue():
    keepalive = started(20.0, 60.0)
    keepalive.tick(120.0, not_reading=False)
    assert keepalive.stalled(50.0)
    assert keepalive.tick(170.0, not_reading=False) is Verdict.PING
    assert keepalive.deadline == 190.0


def test_a_ping_that_stands_for_one_that_was_lost_has_all_its_time_and_no_other_stands_for_it():
    keepalive = started(20.0, 5.0)
    keepalive.tick(120.0, not_reading=False)
    assert keepalive.stalled(10.0)
    assert keepalive.tick(140.0, not_reading=False) is Verdict.PING
    for number in (1, 2, 3):
        assert not keepalive.stalled(10.0)
        assert keepalive.deadline == 145.0 + 10.0 * number
    assert keepalive.tick(174.9, not_reading=False) is Verdict.NOTHING
    assert keepalive.tick(175.0, not_reading=False) is Verdict.SILENT


def test_after_an_answer_a_ping_may_be_lost_again():
    keepalive = started(20.0, 5.0)
    keepalive.tick(120.0, not_reading=False)
    assert keepalive.stalled(10.0)
    keepalive.tick(140.0, not_reading=False)
    keepalive.last_heard = 141.0
    assert keepalive.tick(145.0, not_reading=False) is Verdict.NOTHING
    assert keepalive.tick(160.0, not_reading=False) is Verdict.PING
    assert keepalive.stalled(10.0)
    assert keepalive.tick(180.0, not_reading=False) is Verdict.PING


def test_a_probe_after_a_sleep_goes_out_at_once_and_decides_whatever_was_heard_before_it():
    keepalive = started(20.0, 5.0)
    assert keepalive.stalled(0.0)
    assert keepalive.probe(101.0) is Verdict.PING
    assert keepalive.deadline == 106.0
    assert keepalive.tick(106.0, not_reading=False) is Verdict.SILENT


def test_nobody_is_given_up_while_we_are_not_reading():
    keepalive = started(20.0, 5.0)
    keepalive.tick(120.0, not_reading=True)
    assert keepalive.tick(125.0, not_reading=True) is Verdict.PING


def test_stopped_it_wants_nothing_more():
    keepalive = started()
    keepalive.stop()
    assert not keepalive.stalled(10.0)
    assert keepalive.deadline == NEVER
    assert keepalive.tick(1e9, not_reading=False) is Verdict.NOTHING


def test_a_pong_gives_the_round_trip_and_answers_the_earlier_pings_too():
    keepalive = started()
    keepalive.ping_sent(b"1", 1.0)
    keepalive.ping_sent(b"2", 2.0)
    keepalive.pong_received(b"2", 2.5)
    assert keepalive.answered == [(b"1", 1.5), (b"2", 0.5)]
    assert keepalive.latency == 0.5


def test_the_smoothed_latency_follows_the_last_ones_slowly():
    keepalive = started()
    assert keepalive.smoothed is None
    for number, latency in enumerate((1.0, 1.0, 2.0)):
        keepalive.ping_sent(b"%d" % number, 10.0 * number)
        keepalive.pong_received(b"%d" % number, 10.0 * number + latency)
    assert (keepalive.latency, keepalive.smoothed) == (2.0, 1.125)
    for number in range(50):
        keepalive.ping_sent(b"%d" % number, 0.0)
        keepalive.pong_received(b"%d" % number, 2.0)
    assert keepalive.smoothed == pytest.approx(2.0, abs=0.01)


def test_a_pong_leaves_later_pings_waiting():
    keepalive = started()
    keepalive.ping_sent(b"1", 1.0)
    keepalive.ping_sent(b"2", 2.0)
    keepalive.pong_received(b"1", 3.0)
    assert keepalive.answered == [(b"1", 2.0)]
    keepalive.pong_received(b"2", 4.0)
    assert keepalive.answered == [(b"1", 2.0), (b"2", 2.0)]


def test_fresh_payloads_differ():
    keepalive = started()
    assert len({keepalive.new_payload() for _ in range(1000)}) == 1000


def test_a_pong_that_nobody_asked_for_is_no_answer():
    keepalive = started()
    keepalive.ping_sent(b"1", 1.0)
    keepalive.pong_received(b"2", 3.0)
    assert not keepalive.answered
    assert keepalive.latency is None


def test_a_payload_that_is_still_unanswered_is_refused():
    keepalive = started()
    keepalive.ping_sent(b"1", 1.0)
    with pytest.raises(ValueError, match="payload"):
        keepalive.ping_sent(b"1", 2.0)
