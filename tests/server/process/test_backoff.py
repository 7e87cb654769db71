from __future__ import annotations

from endwell.server.process.backoff import FORGIVEN, Backoff


def test_the_first_crash_is_an_accident_and_each_further_one_costs_twice_the_wait_up_to_a_bound():
    backoff = Backoff()
    assert [backoff.crashed(0.5) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff.crashes == 9


def test_a_worker_that_ran_well_for_a_minute_is_forgiven():
    backoff = Backoff()
    assert [backoff.crashed(lived) for lived in (1, 1, 1, FORGIVEN, 1)] == [0, 1, 2, 0, 1]


def test_each_place_has_a_count_of_its_own():
    one, other = Backoff(), Backoff()
    assert [one.crashed(1), one.crashed(1), other.crashed(1)] == [0, 1, 0]
