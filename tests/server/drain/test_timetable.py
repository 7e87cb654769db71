from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from dataclasses import fields
from math import inf, nan
from typing import get_type_hints

import pytest

from endwell import CloseCode, Drain, RetryAdvice, RetryPolicy
from endwell.server.drain.timetable import DrainKeywords, Phase, Timetable


def timetable(count, **changes):
    return Timetable(Drain(**changes), count)


def test_the_keywords_are_the_fields_of_drain():
    assert list(get_type_hints(DrainKeywords)) == [field.name for field in fields(Drain)]


@pytest.mark.parametrize("changes", [{"window": -1}, {"deadline": inf}, {"rate": 0}, {"window": nan}])
def test_an_invalid_time_or_rate_is_refused(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=name):
        Drain(**changes)
    with pytest.raises(TypeError, match=name):
        Drain(**{name: "1"})


def test_an_invalid_code_or_reason_is_refused():
    with pytest.raises(ValueError, match="1006"):
        Drain(code=1006)
    assert Drain(reason="x" * 103).text == "x" * 103
    with pytest.raises(ValueError, match="103"):
        Drain(reason="x" * 104)


def test_the_default_reason_follows_from_the_code():
    assert Drain().text == "server stopping"
    assert Drain(code=CloseCode.SERVICE_RESTART).text == "server restarting"
    assert Drain(code=1012, reason="").text == ""


def test_a_server_with_few_connections_has_a_short_window():
    assert timetable(0).window == 0
    assert timetable(3).window == pytest.approx(0.03)
    assert timetable(100_000).window == 10
    assert timetable(100_000, deadline=5).window == 2


def test_the_closings_are_random_but_evenly_spread():
    table = timetable(10_000)
    moments = [table.close_time(index, random.random()) for index in range(10_000)]
    assert moments == sorted(moments)
    assert moments[0] >= 0
    assert moments[-1] < table.window
    assert max(Counter(int(moment * 100) for moment in moments).values()) <= 11


@pytest.mark.parametrize("deadline", [0, 0.3, 5, 25, 3600])
@pytest.mark.parametrize("count", [0, 1, 100_000])
def test_the_phases_are_in_order_and_end_before_the_deadline(deadline, count):
    table = timetable(count, deadline=deadline)
    times = [table.begins(phase) for phase in Phase]
    assert times == sorted(times)
    assert times[-1] - table.begins(Phase.CANCEL) >= 1
    assert times[-1] < max(deadline, table.begins(Phase.CANCEL) + 1.001)


def test_busy_time_starts_at_the_moment_of_each_connection():
    table = timetable(100_000)
    assert table.busy_time == 5
    assert table.begins(Phase.WAIT) == table.window + table.busy_time < table.begins(Phase.CANCEL)


def test_an_unresponsive_peer_gets_a_fifth_of_the_deadline_but_two_seconds():
    assert timetable(1).abort_delay == 5
    assert timetable(1, deadline=3).abort_delay == 2


def test_the_retry_advice_starts_after_the_stop_if_the_port_stays_bound():
    table = timetable(2000)
    assert table.return_window() == 5
    assert RetryAdvice.parse(table.reason(0)) == RetryAdvice(11, 16)
    assert RetryAdvice.parse(table.reason(9.5)) == RetryAdvice(1, 6)
    assert RetryAdvice.parse(table.reason(14)) == RetryAdvice(1, 6)
    assert table.reason(0).startswith("server stopping; retry ")
    assert RetryAdvice.parse(timetable(2000, listen=False).reason(0)) == RetryAdvice(0, 5)
    assert timetable(2000, rate=None).reason(0) == "server stopping"


@pytest.mark.parametrize("listen", [True, False])
@pytest.mark.parametrize("count", [10, 150, 2_000, 20_000])
def test_clients_reconnect_at_most_at_the_rate_in_any_second(listen, count):
    table = timetable(count, listen=listen, rate=200)
    dice = random.Random(count)
    back = []
    for index in range(count):
        at = table.close_time(index, dice.random())
        earliest, latest = RetryAdvice.parse(table.reason(at))
        if listen:
            assert at + earliest >= table.window
        back.append(at + earliest + dice.random() * (latest - earliest))
    back.sort()
    assert max(bisect_left(back, moment + 1) - number for number, moment in enumerate(back)) <= 200


def test_a_refusal_has_retry_after():
    table = timetable(2000)
    assert table.retry_after(0, 0.0) == 11
    assert table.retry_after(0, 0.99) == 16
    assert table.retry_after(24, 0.0) == 1
    assert timetable(2000, listen=False).retry_after(0, 0.0) == 1


def test_advice_is_limited_to_what_the_grammar_can_express():
    assert RetryAdvice.parse(timetable(10**9, rate=1).reason(0)) == RetryAdvice(11, 99999)
    assert RetryPolicy().max_advised < 99999
