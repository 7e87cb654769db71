from __future__ import annotations

from endwell.server.process.backoff import FORGIVEN, Backoff


def test_the_restart_delay_doubles_with_each_crash_up_to_a_bound():
    backoff = Backoff()
    assert [backoff.crashed(0.5) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff.crashes == 9


def test_the_crash_count_resets_after_a_minute():
    backoff = Backoff()
    assert [backoff.crashed(lived) for lived in (1, 1, 1, FORGIVEN, 1)] == [0, 1, 2, 0, 1]


def test_crashes_are_counted_per_worker_slot():
    one, other = Backoff(), Backoff()
    assert [one.crashed(1), one.crashed(1), other.crashed(1)] == [0, 1, 0]
