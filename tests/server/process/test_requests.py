"""The number of requests of a worker."""

from __future__ import annotations

from endwell.server.process.requests import RequestCount


def reached_at(limit: int, jitter: int, requests: int) -> list[int]:
    """The numbers of the requests at which the limit is reached."""
    reached = []
    count = RequestCount(limit, jitter, lambda: reached.append(answered[0]))
    answered = [0]
    for _ in range(requests):
        answered[0] += 1
        count.answered(None, 200)
    return reached


def test_it_is_reached_again_and_again():
    assert reached_at(3, 0, 9) == [3, 6, 9]


def test_jitter_delays_the_first_time_only():
    first, *others = reached_at(3, 10, 19)
    assert 3 <= first <= 13
    assert others == list(range(first + 3, 20, 3))
