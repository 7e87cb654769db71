from __future__ import annotations

import pytest

from endwell.advice import RetryAdvice
from endwell.ending import Cause, Close, Initiator, TcpEnd
from endwell.options import Options
from endwell.protocol.closing import State
from endwell.protocol.deadline import NEVER
from endwell.protocol.liveness import Liveness, Verdict
from endwell.protocol.pause import Pause
from endwell.wire.codec import Codec, Ping
from tests.protocol.core import connection, drain_outbox, frame, opened, sent_frames


def started(interval=20.0, timeout=20.0, now=100.0, **options):
    liveness = Liveness(
        Options(ping_interval=interval, ping_timeout=timeout, open_timeout=None, **options), now
    )
    liveness.begin(now)
    # As the closing machine does when the connection has opened.
    liveness.limit_lifetime(now, 0.0)
    liveness.rearm()
    return liveness


def stalled(liveness, seconds, now):
    """A stall that ends at ``now``."""
    return liveness.shift(now - seconds, seconds, now)


def test_without_an_interval_there_is_no_deadline():
    liveness = started(interval=None)
    assert liveness.deadline == NEVER
    assert liveness.check(1e9, not_reading=False) is Verdict.NOTHING


def test_a_ping_is_due_after_the_interval():
    liveness = started()
    assert liveness.deadline == 120.0
    assert liveness.check(119.9, not_reading=False) is Verdict.NOTHING
    assert liveness.check(120.0, not_reading=False) is Verdict.PING


def test_a_silent_peer_is_dead_after_the_timeout():
    liveness = started(20.0, 5.0)
    liveness.check(120.0, not_reading=False)
    assert liveness.deadline == 125.0
    assert liveness.check(124.9, not_reading=False) is Verdict.NOTHING
    assert liveness.check(125.0, not_reading=False) is Verdict.SILENT


def test_any_data_after_the_ping_proves_the_peer_alive():
    liveness = started(20.0, 5.0)
    liveness.check(120.0, not_reading=False)
    liveness.last_heard = 121.0
    assert liveness.check(125.0, not_reading=False) is Verdict.NOTHING
    assert liveness.deadline == 140.0
    assert liveness.check(140.0, not_reading=False) is Verdict.PING


def test_the_deadline_is_interval_and_timeout_after_the_last_data():
    liveness = started(20.0, 5.0)
    liveness.last_heard = 119.0
    liveness.check(120.0, not_reading=False)
    assert liveness.check(125.0, not_reading=False) is Verdict.NOTHING
    assert liveness.deadline == 144.0
    assert liveness.check(144.0, not_reading=False) is Verdict.SILENT


def test_a_peer_that_sends_but_never_answers_pings_stays_alive():
    liveness = started()
    now, heard = 100.0, 100.0
    while now < 10_000.0:
        now = min(liveness.deadline, heard + 20.02)
        if now == heard + 20.02:
            heard = liveness.last_heard = now
        else:
            assert liveness.check(now, not_reading=False) is not Verdict.SILENT


def test_a_longer_timeout_does_not_delay_pings():
    liveness = started(1.0, 20.0)
    assert liveness.check(101.0, not_reading=False) is Verdict.PING
    liveness.last_heard = 101.5
    assert liveness.check(102.0, not_reading=False) is Verdict.PING


def test_an_unanswered_ping_is_not_repeated_before_its_timeout():
    liveness = started(1.0, 20.0)
    liveness.check(101.0, not_reading=False)
    assert liveness.check(102.0, not_reading=False) is Verdict.NOTHING
    assert liveness.deadline == 121.0
    assert liveness.check(121.0, not_reading=False) is Verdict.SILENT


def test_without_a_timeout_no_peer_is_dead():
    liveness = started(20.0, None)
    for now in (120.0, 140.0, 160.0):
        assert liveness.check(now, not_reading=False) is Verdict.PING


def test_after_a_stall_only_a_new_ping_decides():
    liveness = started(20.0, 5.0)
    liveness.check(120.0, not_reading=False)
    assert stalled(liveness, 10.0, 131.0)
    assert liveness.deadline == 140.0
    assert liveness.check(140.0, not_reading=False) is Verdict.PING
    assert liveness.check(145.0, not_reading=False) is Verdict.SILENT


def test_after_a_stall_an_overdue_ping_is_sent_at_once():
    liveness = started(20.0, 60.0)
    liveness.check(120.0, not_reading=False)
    assert stalled(liveness, 50.0, 170.0)
    assert liveness.check(170.0, not_reading=False) is Verdict.PING
    assert liveness.deadline == 190.0


def test_a_replacement_ping_has_its_full_timeout_and_is_not_replaced():
    liveness = started(20.0, 5.0)
    liveness.check(120.0, not_reading=False)
    assert stalled(liveness, 10.0, 131.0)
    assert liveness.check(140.0, not_reading=False) is Verdict.PING
    for number in (1, 2, 3):
        assert not stalled(liveness, 10.0, 140.0 + 10.0 * number)
        assert liveness.deadline == 145.0 + 10.0 * number
    assert liveness.check(174.9, not_reading=False) is Verdict.NOTHING
    assert liveness.check(175.0, not_reading=False) is Verdict.SILENT


def test_after_an_answer_a_lost_ping_is_replaced_again():
    liveness = started(20.0, 5.0)
    liveness.check(120.0, not_reading=False)
    assert stalled(liveness, 10.0, 131.0)
    liveness.check(140.0, not_reading=False)
    liveness.last_heard = 141.0
    assert liveness.check(145.0, not_reading=False) is Verdict.NOTHING
    assert liveness.check(160.0, not_reading=False) is Verdict.PING
    assert stalled(liveness, 10.0, 171.0)
    assert liveness.check(180.0, not_reading=False) is Verdict.PING


def test_a_probe_after_a_suspension_is_sent_at_once_and_decides():
    liveness = started(20.0, 5.0)
    assert liveness.shift(101.0, 3600.0, 101.0)
    assert liveness.probe(101.0) is Verdict.PING
    assert liveness.deadline == 106.0
    assert liveness.check(106.0, not_reading=False) is Verdict.SILENT


def test_no_peer_is_dead_while_reading_is_paused():
    liveness = started(20.0, 5.0)
    liveness.check(120.0, not_reading=True)
    assert liveness.check(125.0, not_reading=True) is Verdict.PING


def test_a_stopped_keepalive_has_no_deadline():
    liveness = started()
    liveness.stop()
    assert not stalled(liveness, 10.0, 120.0)
    assert liveness.deadline == NEVER
    assert liveness.check(1e9, not_reading=False) is Verdict.NOTHING


def test_a_pong_gives_the_latency_and_answers_earlier_pings():
    liveness = started()
    liveness.ping_sent(b"1", 1.0)
    liveness.ping_sent(b"2", 2.0)
    liveness.pong_received(b"2", 2.5)
    assert liveness.answered == [(b"1", 1.5), (b"2", 0.5)]
    assert liveness.latency == 0.5


def test_the_smoothed_latency_follows_recent_values_slowly():
    liveness = started()
    assert liveness.smoothed_latency == -1  # unknown
    for number, latency in enumerate((1.0, 1.0, 2.0)):
        liveness.ping_sent(b"%d" % number, 10.0 * number)
        liveness.pong_received(b"%d" % number, 10.0 * number + latency)
    assert (liveness.latency, liveness.smoothed_latency) == (2.0, 1.125)
    for number in range(50):
        liveness.ping_sent(b"%d" % number, 0.0)
        liveness.pong_received(b"%d" % number, 2.0)
    assert liveness.smoothed_latency == pytest.approx(2.0, abs=0.01)


def test_a_pong_leaves_later_pings_waiting():
    liveness = started()
    liveness.ping_sent(b"1", 1.0)
    liveness.ping_sent(b"2", 2.0)
    liveness.pong_received(b"1", 3.0)
    assert liveness.answered == [(b"1", 2.0)]
    liveness.pong_received(b"2", 4.0)
    assert liveness.answered == [(b"1", 2.0), (b"2", 2.0)]


def test_random_payloads_differ():
    liveness = started()
    assert len({liveness.new_payload() for _ in range(1000)}) == 1000


def test_an_unsolicited_pong_is_no_answer():
    liveness = started()
    liveness.ping_sent(b"1", 1.0)
    liveness.pong_received(b"2", 3.0)
    assert not liveness.answered
    assert liveness.latency is None


def test_a_payload_of_an_unanswered_ping_is_refused():
    liveness = started()
    liveness.ping_sent(b"1", 1.0)
    with pytest.raises(ValueError, match="payload"):
        liveness.ping_sent(b"1", 2.0)


def test_a_peer_that_accepts_no_data_is_stuck_after_write_timeout():
    liveness = started(interval=None, write_timeout=30)
    liveness.outbox.append(b"x")
    liveness.outbox.consume(0, 100.0)
    liveness.rearm()
    assert liveness.deadline == 130.0
    assert liveness.check(129.9, not_reading=False) is Verdict.NOTHING
    assert liveness.check(130.0, not_reading=False) is Verdict.STUCK


def test_idle_timeout_counts_from_the_opening_without_messages():
    liveness = started(interval=None, idle_timeout=60)
    assert liveness.deadline == 160.0
    assert liveness.check(159.9, not_reading=False) is Verdict.NOTHING
    assert liveness.check(160.0, not_reading=False) is Verdict.IDLE


def test_jitter_shortens_a_lifetime_by_at_most_a_tenth():
    for jitter, end in ((0.0, 200.0), (0.5, 195.0), (1.0, 190.0)):
        liveness = started(interval=None, max_lifetime=100)
        liveness.limit_lifetime(100.0, jitter)
        liveness.rearm()
        assert liveness.deadline == end
        assert liveness.check(end - 0.1, not_reading=False) is Verdict.NOTHING
        assert liveness.check(end, not_reading=False) is Verdict.EXPIRED


def test_the_earliest_of_all_limits_is_the_deadline():
    liveness = started(interval=20, idle_timeout=15, max_lifetime=10)
    assert liveness.deadline == 110.0
    assert started(interval=20, idle_timeout=15, max_lifetime=30).deadline == 115.0
    assert started(interval=20, idle_timeout=35, max_lifetime=30).deadline == 120.0


def test_a_delay_of_a_second_is_no_stall():
    liveness = started(20.0, 5.0)
    assert not stalled(liveness, 1.0, 110.0)
    assert (liveness.deadline, liveness.seconds_stalled()) == (120.0, 0.0)


def test_stalls_add_up_until_data_of_the_peer_arrives():
    liveness = started(20.0, 5.0)
    stalled(liveness, 3.0, 105.0)
    stalled(liveness, 2.0, 109.0)
    assert liveness.seconds_stalled() == 5.0
    liveness.last_heard = 110.0
    assert liveness.seconds_stalled() == 0.0
    stalled(liveness, 2.0, 113.0)
    assert liveness.seconds_stalled() == 2.0


def test_a_stall_that_two_timers_report_counts_once():
    liveness = started(20.0, 5.0)
    stalled(liveness, 10.0, 111.0)
    assert not stalled(liveness, 9.0, 111.5)
    assert liveness.seconds_stalled() == 10.0


# -- on a connection ---------------------------------------------------------------------------


def test_a_silent_peer_is_pinged_and_then_closed():
    core = opened(ping_interval=20, ping_timeout=20)
    assert core.deadline == 20.0
    core.tick(20.0)
    assert isinstance(sent_frames(core)[0], Ping)
    core.tick(40.0)
    assert core.abort
    assert sent_frames(core) == [Close(1001, Cause.KEEPALIVE_TIMEOUT.meaning)]
    ending = core.ending
    assert (ending.cause, ending.initiator, ending.sent.code, ending.tcp) == (
        Cause.KEEPALIVE_TIMEOUT,
        Initiator.LOCAL,
        1001,
        TcpEnd.ABORTED,
    )
    assert not ending.ok


def test_a_peer_that_never_answers_pings_costs_one_payload():
    core = opened(ping_interval=20, ping_timeout=20)
    mine = core.ping(b"mine", 0.0)
    for turn in range(1, 100):
        core.receive(frame(core, "message", "still here"), 20.0 * turn + 1)
        core.inbox.clear()
        core.tick(20.0 * turn)
        drain_outbox(core)
    assert core.is_open
    assert len(core._unanswered) == 2
    core.receive(frame(core, "pong", core.last_payload), 2000.0)
    assert [payload for payload, _ in core.answered] == [mine, core.last_payload]


def test_a_peer_that_accepts_nothing_is_aborted_after_write_timeout():
    core = opened(write_timeout=30, ping_interval=None)
    core.send("x", 0.0)
    core.sent(0, 0.0)
    assert core.deadline == 30.0
    core.tick(30.0)
    assert core.abort
    assert (core.ending.cause, core.ending.sent) == (Cause.WRITE_TIMEOUT, None)


def test_tcp_info_detects_a_dead_peer_while_reading_is_paused():
    core = opened(max_queue=1, ping_interval=20.0, ping_timeout=20.0)
    core.receive(frame(core, "message", "x"), 1.0)
    core.tick(20.0, confirmed=15.0)
    assert [type(event) for event in sent_frames(core)] == [Ping]
    core.tick(40.0, confirmed=20.1)  # it has acknowledged the ping
    assert core.is_open
    assert [type(event) for event in sent_frames(core)] == [Ping]
    core.tick(60.0, confirmed=20.1)  # but not this one
    assert core.is_open
    core.tick(60.1, confirmed=20.1)
    assert core.ending.cause is Cause.KEEPALIVE_TIMEOUT


def test_without_tcp_info_no_peer_times_out_while_reading_is_paused():
    core = opened(max_queue=1, ping_interval=20.0, ping_timeout=20.0)
    core.receive(frame(core, "message", "x"), 1.0)
    for now in (20.0, 40.0, 60.0, 80.0):
        core.tick(now)
    assert core.is_open


def test_a_draining_outbox_proves_the_peer_alive():
    core = opened(ping_interval=20, ping_timeout=20)
    core.send("x" * 100, 19.0)
    core.sent(0, 19.0)
    core.tick(20.0)
    core.sent(1, 35.0)
    core.tick(40.0)
    assert core.state is State.OPEN


def test_idle_timeout_closes_an_idle_connection():
    core = opened(idle_timeout=60, ping_interval=None)
    core.receive(frame(core, "ping", b""), 30.0)
    core.receive(frame(core, "message", "x"), 40.0)
    core.tick(60.0)
    assert core.state is State.OPEN
    assert core.deadline == 100.0
    core.tick(100.0)
    assert (core.state, sent_frames(core)[-1].code) == (State.CLOSING, 1001)
    core.eof(100.0)
    assert core.ending.cause is Cause.IDLE_TIMEOUT


def test_stale_after_counts_received_messages_only():
    core = opened(stale_after=60, ping_interval=None)
    core.receive(frame(core, "ping", b""), 30.0)
    core.receive(frame(core, "message", "x"), 40.0)
    assert core.send("ours", 50.0)
    core.sent(core.outbox.size, 50.0)
    core.tick(60.0)
    assert core.state is State.OPEN
    assert core.deadline == 100.0
    core.tick(100.0)
    assert (core.state, sent_frames(core)[-1].code) == (State.CLOSING, 1001)
    core.eof(100.0)
    assert core.ending.cause is Cause.IDLE_TIMEOUT


def test_stale_after_does_not_count_a_stall_of_this_process():
    core = opened(stale_after=60, ping_interval=None)
    core.stalled(20.0, 30.0, 50.0)
    core.tick(60.0)
    assert core.state is State.OPEN
    assert core.deadline == 90.0


@pytest.mark.parametrize("confirmed", [None, 59.0], ids=["still", "meanwhile"])
def test_stale_after_does_not_count_the_time_while_reading_pauses(confirmed):
    core = opened(stale_after=60, ping_interval=None)
    if confirmed is None:
        core.pause(Pause.DELIVERY)
    core.tick(60.0, confirmed)
    assert core.state is State.OPEN
    core.resume(Pause.DELIVERY)
    assert core.deadline == 120.0
    core.tick(120.0)
    assert core.state is State.CLOSING


def test_a_server_closes_at_max_lifetime_with_retry_advice():
    core = opened(max_lifetime=60, ping_interval=None)
    assert core.deadline == 60.0
    core.tick(60.0)
    (close,) = sent_frames(core)
    assert close == Close(1012, "the connection reached its maximum lifetime; retry 0-1s")
    assert RetryAdvice.parse(close.reason) == (0, 1)
    core.eof(60.0)
    assert core.ending.cause is Cause.LIFETIME_REACHED


def test_a_client_closes_at_max_lifetime_without_advice():
    core = opened(client=True, max_lifetime=60, ping_interval=None)
    core.tick(60.0)
    assert sent_frames(core) == [Close(1012, "the connection reached its maximum lifetime")]


def test_lifetimes_are_jittered_by_up_to_a_tenth():
    for jitter, end in ((0.0, 60.0), (0.5, 57.0), (0.999, 54.006)):
        core = connection(max_lifetime=60, ping_interval=None)
        core.accept(Codec(False), 0.0, jitter=jitter)
        assert core.deadline == pytest.approx(end)


def test_with_every_timeout_off_there_is_no_deadline():
    core = opened(ping_interval=None, write_timeout=None)
    core.send("x", 0.0)
    core.sent(0, 0.0)
    assert core.deadline == NEVER
