"""The retry policy as a pure function: no socket, no sleep, random numbers as an argument."""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import FrozenInstanceError, fields, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell import (
    Cause,
    Close,
    CloseCode,
    Ending,
    HandshakeError,
    HandshakeRejected,
    Headers,
    History,
    Initiator,
    InvalidHandshake,
    Response,
    Retry,
    RetryAdvice,
    RetryPolicy,
    StopReason,
)
from endwell.client.retry import retry_of_status

POLICY = RetryPolicy()
FIRST = History(1, 0.0)
#: 2026-11-21 12:00:00 UTC.
NOON = 1795262400.0

dice = st.floats(0, 1, exclude_max=True)


def closed(code, reason="", duration=60.0):
    """An ending with a Close from the server."""
    close = Close(None if code == 1005 else code, reason)
    return Ending(
        cause=Cause.PEER_CLOSED,
        initiator=Initiator.PEER,
        clean=True,
        received=close,
        sent=close,
        duration=duration,
    )


def ended(cause, duration=60.0):
    """An ending with another cause."""
    sent = Close(cause.close_code) if cause.close_code else None
    return Ending(cause=cause, initiator=cause.initiator, clean=False, sent=sent, duration=duration)


def rejected(status, **headers):
    """A handshake refused by the server, at half a second past noon."""
    ending = replace(ended(Cause.HANDSHAKE_REJECTED, 0.5), initiator=Initiator.PEER, opened_at=NOON)
    fields = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return HandshakeRejected(ending, Response(status, fields))


def failed(cause=Cause.NETWORK_ERROR):
    """A failed handshake."""
    return HandshakeError(ended(cause, 0.0))


CUT = ended(Cause.CONNECTION_RESET)
ALL = [
    *[closed(code) for code in CloseCode if code.may_receive or code == 1005],
    *[ended(cause) for cause in Cause if cause is not Cause.PEER_CLOSED],
    *[rejected(status) for status in (200, 301, 400, 401, 403, 404, 408, 425, 426, 429, 500, 501, 503)],
    *[failed(cause) for cause in (Cause.NETWORK_ERROR, Cause.TLS_ERROR, Cause.HANDSHAKE_FAILED)],
    rejected(503, Retry_After="7"),
    closed(1012, "server restarting; retry 2-12s"),
    closed(1012, "retry 0-0s"),
]


def bounds(last, history=FIRST, policy=POLICY):
    """The smallest and the largest delay."""
    low = policy.decide(history, last, history.since, 0.0)
    high = policy.decide(history, last, history.since, 1.0)
    return low, high


# --- whether to retry -----------------------------------------------------------


@pytest.mark.parametrize("code", [code for code in CloseCode if code.may_receive], ids=str)
def test_the_servers_code_decides_whether_to_retry(code):
    assert POLICY.retry(closed(code)) is code.retry
    assert isinstance(POLICY.decide(FIRST, closed(code), 0.0, 0.5), StopReason) is (code.retry is Retry.NEVER)


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause is not Cause.PEER_CLOSED])
def test_without_a_close_the_cause_decides_whether_to_retry(cause):
    assert POLICY.retry(ended(cause)) is cause.retry


@pytest.mark.parametrize(
    ("status", "retry"),
    [
        *[(status, Retry.NEVER) for status in (200, 204, 301, 400, 401, 402, 403, 404, 405, 410, 426, 451)],
        *[(status, Retry.LATER) for status in (408, 425, 429)],
        *[(status, Retry.LATER) for status in (500, 502, 503, 504, 507, 511, 520, 599)],
        *[(status, Retry.NEVER) for status in (501, 505, 600, 999)],
    ],
)
def test_the_status_of_a_refusal_decides_whether_to_retry(status, retry):
    assert retry_of_status(status) is retry
    assert POLICY.retry(rejected(status)) is retry


def test_a_handshake_that_failed_without_a_response_is_retried():
    for cause in (Cause.NETWORK_ERROR, Cause.TLS_ERROR, Cause.HANDSHAKE_FAILED, Cause.PEER_VANISHED):
        assert POLICY.retry(failed(cause)) is not Retry.NEVER


@pytest.mark.parametrize(
    ("last", "stop"),
    [
        (closed(1000), StopReason.DONE),
        (ended(Cause.APP_CLOSED), StopReason.DONE),
        (replace(ended(Cause.APP_CLOSED), sent=None), StopReason.DONE),  # abort()
        (ended(Cause.CANCELLED), StopReason.DONE),
        (closed(1008), StopReason.REFUSED),
        (closed(3000), StopReason.REFUSED),
        (ended(Cause.PROTOCOL_ERROR), StopReason.REFUSED),
        (ended(Cause.MESSAGE_TOO_BIG), StopReason.REFUSED),
        (rejected(401), StopReason.REFUSED),
        (rejected(404), StopReason.REFUSED),
        (rejected(200), StopReason.REFUSED),
    ],
    ids=str,
)
def test_a_stop_reason_is_done_or_refused(last, stop):
    assert POLICY.decide(FIRST, last, 0.0, 0.5) is stop


@pytest.mark.parametrize(
    ("last", "code", "retry"),
    [
        (closed(4001), 4001, Retry.NEVER),
        (closed(1000), 1000, Retry.LATER),
        (replace(ended(Cause.APP_CLOSED), sent=Close(4000, "stale")), 4000, Retry.NOW),
        (rejected(404), 404, Retry.LATER),
        (rejected(503), 503, Retry.NEVER),
        (CUT, 1006, Retry.NEVER),
        (ended(Cause.PEER_VANISHED), 1006, Retry.LATER),
        (ended(Cause.NETWORK_ERROR), 1006, Retry.NOW),
        (replace(ended(Cause.WRITE_TIMEOUT), sent=None), 1006, Retry.NEVER),
        (replace(closed(1005), received=Close()), 1005, Retry.NEVER),
    ],
    ids=str,
)
def test_codes_of_the_policy_take_precedence(last, code, retry):
    assert POLICY.retry(last) is not retry
    assert RetryPolicy(codes={code: retry}).retry(last) is retry


def test_a_rule_for_1006_ignores_failed_handshakes_and_cancellation():
    assert RetryPolicy(codes={1006: Retry.NEVER}).retry(failed()) is Retry.LATER
    cancelled = replace(ended(Cause.CANCELLED), sent=None)
    assert cancelled.code == 1006
    assert RetryPolicy(codes={1006: Retry.NOW}).retry(cancelled) is Retry.NEVER


@pytest.mark.parametrize("codes", [None, 4001, [(4001, Retry.NEVER)]])
def test_codes_that_are_no_mapping_are_a_type_error(codes):
    with pytest.raises(TypeError, match=r"^codes must be a mapping"):
        RetryPolicy(codes=codes)


@pytest.mark.parametrize("key", ["4001", None, 4001.5, True])
def test_a_key_in_codes_that_is_no_integer_is_a_type_error(key):
    with pytest.raises(TypeError, match="codes must have numbers as keys"):
        RetryPolicy(codes={key: Retry.NEVER})


@pytest.mark.parametrize("key", [-1, 0, 101, 199, 1004, 1015, 1016, 2999, 5000])
def test_a_key_in_codes_that_can_never_match_is_a_value_error(key):
    with pytest.raises(ValueError, match=rf"codes\[{key}\]"):
        RetryPolicy(codes={key: Retry.NEVER})


def test_every_possible_code_may_be_a_key_in_codes():
    codes = [200, 301, 404, 599, 1005, 1006, 3500, 4999, *(code for code in CloseCode if code.may_receive)]
    RetryPolicy(codes=dict.fromkeys(codes, Retry.NOW))


def test_an_invalid_handshake_response_is_not_retried():
    fault = InvalidHandshake("the response is not HTTP")
    failure = HandshakeError(replace(ended(Cause.HANDSHAKE_FAILED, 0.0), exception=fault))
    assert POLICY.decide(FIRST, failure, 0.0, 0.5) is StopReason.REFUSED


def test_a_failed_handshake_is_never_retried_without_a_delay():
    for cause in (Cause.PEER_VANISHED, Cause.CONNECTION_RESET, Cause.NETWORK_ERROR):
        assert bounds(failed(cause))[0] == POLICY.base


def test_a_rule_for_a_code_ignores_codes_the_library_sent():
    policy = RetryPolicy(codes={1001: Retry.NEVER})
    assert ended(Cause.KEEPALIVE_TIMEOUT).code == 1001
    assert policy.retry(ended(Cause.KEEPALIVE_TIMEOUT)) is Retry.NOW


# --- when to retry --------------------------------------------------------------


@pytest.mark.parametrize(
    ("tries", "now", "later"),
    [
        (1, (0, 5), (5, 10)),
        (2, (5, 15), (5, 15)),
        (3, (5, 25), (5, 25)),
        (4, (5, 45), (5, 45)),
        (5, (5, 65), (5, 65)),
        (6, (5, 65), (5, 65)),
        (100_000, (5, 65), (5, 65)),
    ],
)
def test_the_backoff_windows_are_these(tries, now, later):
    history = History(tries, 0.0)
    assert bounds(CUT, history) == now
    assert bounds(closed(1013), history) == later


@given(dice)
def test_the_delay_is_uniform_over_the_window(jitter):
    assert POLICY.decide(FIRST, CUT, 0.0, jitter) == 5 * jitter


@pytest.mark.parametrize(
    ("last", "window"),
    [
        (closed(1012, "server restarting; retry 2-12s"), (2, 12)),
        (closed(1001, "retry 30-90s"), (30, 90)),
        (closed(1013, "retry 0-0s"), (0, 0)),
        (closed(1013, "retry 12-2s"), (5, 10)),  # no advice
        (closed(1012, "retry 50000-60000s"), (3600, 3605)),
        (rejected(503), (5, 10)),
        (rejected(503, Retry_After="7"), (7, 12)),
        (rejected(429, Retry_After="0"), (0, 5)),
        (rejected(503, Retry_After="9" * 5000), (3600, 3605)),
        (rejected(503, Retry_After="Sat, 21 Nov 2026 12:00:30 GMT"), (29.5, 34.5)),
        (rejected(503, Retry_After="Saturday, 21-Nov-26 12:00:30 GMT"), (29.5, 34.5)),
        (rejected(503, Retry_After="Sat Nov 21 12:00:30 2026"), (29.5, 34.5)),
        (rejected(503, Retry_After="Sat, 21 Nov 2026 11:00:00 GMT"), (0, 5)),  # past
        (rejected(503, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"), (3600, 3605)),
        # By the clock of the server, which is years off.
        (
            rejected(
                503,
                Date="Thu, 01 Jan 1970 00:01:40 GMT",
                Retry_After="Thu, 01 Jan 1970 00:02:00 GMT",
            ),
            (20, 25),
        ),
        *[
            (rejected(503, Retry_After=nonsense), (5, 10))
            for nonsense in ("", "soon", "-1", "1.5", "+3", "\u00b2", "Sat, 99 Foo 2026", "Sat, 21 Nov 2026")
        ],
    ],
    ids=str,
)
def test_advice_of_the_server_moves_the_window(last, window):
    assert bounds(last) == pytest.approx(window)


@pytest.mark.parametrize(
    "last", [rejected(401, Retry_After="1"), closed(1008, "retry 1-2s"), closed(1000, "retry 1-2s")], ids=str
)
def test_advice_decides_when_but_not_whether(last):
    assert isinstance(POLICY.decide(FIRST, last, 0.0, 0.5), StopReason)


def test_advice_in_the_answer_to_our_close_is_ignored():
    answered = replace(ended(Cause.KEEPALIVE_TIMEOUT), received=Close(1001, "retry 60-70s"))
    assert bounds(answered) == (0, 5)


@pytest.mark.parametrize(
    ("last", "window"),
    [
        (closed(1012, "retry 0-0s"), (5, 25)),
        (closed(1012, "retry 2-12s"), (5, 25)),
        (closed(1012, "retry 30-90s"), (30, 90)),
        (rejected(503, Retry_After="1"), (5, 25)),
        (rejected(503, Retry_After="60"), (60, 80)),
    ],
    ids=str,
)
def test_repeated_advice_is_a_lower_bound_of_the_backoff(last, window):
    assert bounds(last, History(3, 0.0)) == window


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, ?[0-9]{1,3}.[A-Z][a-z]{2}.[0-9]{2,5} [0-9:]{5,9}.*"))
def test_no_server_input_breaks_the_decision(text):
    text = "".join(char for char in text if char >= " " and char.isascii())
    wait = POLICY.decide(FIRST, rejected(503, Retry_After=text, Date=text), 0.0, 0.5)
    assert 0 <= wait <= 3602.5


# --- the count of attempts in a row --------------------------------------------


def test_the_count_of_attempts_resets_only_after_a_stable_connection():
    history = POLICY.after(History(), CUT, 100.0)
    assert history == History(1, 100.0)
    history = POLICY.after(history, closed(1013, duration=9.9), 120.0)
    history = POLICY.after(history, failed(), 130.0)
    history = POLICY.after(history, rejected(503), 140.0)
    assert history == History(4, 100.0)
    assert POLICY.after(history, closed(1013, duration=10.0), 200.0) == History(1, 200.0)


def test_a_slow_refusal_is_no_stable_connection():
    slow = rejected(503)
    slow = HandshakeRejected(replace(slow.ending, duration=30.0), slow.response)
    assert POLICY.after(History(4, 0.0), slow, 40.0).tries == 5


def test_max_retries_counts_attempts_in_a_row():
    policy = RetryPolicy(max_retries=2)
    assert [policy.decide(History(tries, 0.0), CUT, 0.0, 0.0) for tries in (1, 2, 3)] == [
        0,
        5,
        StopReason.RETRIES,
    ]


def test_the_time_budget_ends_before_a_wait_that_exceeds_it():
    policy = RetryPolicy(max_time=30)
    assert policy.decide(History(2, 100.0), CUT, 115.0, 0.999) == pytest.approx(14.99)
    assert policy.decide(History(2, 100.0), CUT, 115.1, 0.999) is StopReason.TIME
    assert policy.decide(History(1, 100.0), rejected(503, Retry_After="31"), 100.0, 0.0) is StopReason.TIME


def test_a_final_ending_is_not_attributed_to_the_budget():
    policy = RetryPolicy(max_retries=1, max_time=1)
    assert policy.decide(History(9, 0.0), closed(1000), 99.0, 0.0) is StopReason.DONE
    assert policy.decide(History(9, 0.0), rejected(401), 99.0, 0.0) is StopReason.REFUSED


# --- the load on servers -----------------------------------------------------------


def attempts(last, draw, until, policy=POLICY):
    """The times of the attempts before ``until`` if the server ends each connection with ``last``."""
    times, now, history = [], 0.0, History()
    while now < until:
        times.append(now)
        history = policy.after(history, last, now)
        wait = policy.decide(history, last, now, draw())
        if isinstance(wait, StopReason):
            break
        now += wait
    return times


@given(st.lists(dice, min_size=40, max_size=40))
def test_a_server_that_closes_with_1013_receives_6_connections_in_30_s(rolls):
    rolls = iter(rolls)
    assert len(attempts(closed(1013, duration=0.0), lambda: next(rolls), 30.0)) <= 6


@given(st.sampled_from(ALL), st.lists(dice, min_size=40, max_size=40))
def test_later_attempts_are_5_s_apart_with_any_advice(last, rolls):
    if isinstance(last, Ending):
        last = replace(last, duration=0.0)
    rolls = iter(rolls)
    times = attempts(last, lambda: next(rolls), 120.0)
    assert all(later - sooner >= 5 - 1e-9 for sooner, later in pairwise(times[1:]))


def peak(times):
    """The most attempts in any one second."""
    times = sorted(times)
    return max(bisect_left(times, time + 1.0) - index for index, time in enumerate(times))


@pytest.mark.parametrize(("last", "most"), [(CUT, 260), (closed(1001), 260), (closed(1013), 260)], ids=str)
def test_a_thousand_clients_aborted_at_once_reconnect_spread_out(last, most):
    draw = random.Random(1).random
    assert peak([POLICY.decide(FIRST, last, 0.0, draw()) for _ in range(1000)]) <= most


def test_a_thousand_clients_with_advice_reconnect_within_its_window():
    draw = random.Random(1).random
    last = closed(1012, RetryAdvice(2, 42).reason("server restarting"))
    times = [POLICY.decide(FIRST, last, 0.0, draw()) for _ in range(1000)]
    assert 2 <= min(times) < 3
    assert 41 < max(times) <= 42
    assert peak(times) <= 50


def test_a_thousand_clients_of_a_dead_server_spread_further():
    draw = random.Random(1).random
    rows = [attempts(failed(), draw, 300.0) for _ in range(1000)]
    # All clients start at the same time; later attempts count.
    assert peak([time for row in rows for time in row if time > 0]) <= 260
    assert peak([time for row in rows for time in row if time > 60]) <= 80


# --- the object -------------------------------------------------------------------


def test_a_policy_is_frozen_and_compared_by_value():
    with pytest.raises(FrozenInstanceError):
        POLICY.base = 1.0
    assert RetryPolicy(base=5.0) == POLICY


@pytest.mark.parametrize("name", [option.name for option in fields(RetryPolicy) if option.metadata])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (float("inf"), (ValueError, TypeError)),
        (float("nan"), (ValueError, TypeError)),
        ("5", TypeError),
        (True, TypeError),
    ],
)
def test_an_invalid_limit_is_refused_by_name(name, value, error):
    with pytest.raises(error, match=name):
        RetryPolicy(**{name: value})


def test_only_budgets_can_be_none():
    assert RetryPolicy(max_retries=None, max_time=None) == POLICY
    with pytest.raises(TypeError, match="base"):
        RetryPolicy(base=None)


def test_a_value_in_codes_that_is_no_retry_is_refused():
    with pytest.raises(TypeError, match="4001"):
        RetryPolicy(codes={4001: "never"})
