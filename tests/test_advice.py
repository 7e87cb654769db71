"""The retry advice ("retry 2-12s") in the reason of a Close."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.advice import MAX_SECONDS, MAX_TEXT, RetryAdvice
from tests.linear import takes_linear_time

seconds = st.integers(0, MAX_SECONDS)


@pytest.mark.parametrize(
    ("reason", "window"),
    [
        ("retry 2-12s", (2, 12)),
        ("server restarting; retry 2-12s", (2, 12)),
        ("retry 0-0s", (0, 0)),
        ("retry 00002-99999s", (2, 99999)),
        ("a; b; retry 1-2s", (1, 2)),
        ("retry 1-2s; retry 3-4s", (3, 4)),  # the last one counts
        ("; retry 1-2s", (1, 2)),
        ("zurück gleich ✓; retry 1-2s", (1, 2)),
    ],
)
def test_advice_at_the_end_of_a_reason_is_parsed(reason, window):
    assert RetryAdvice.parse(reason) == window


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "server restarting",
        "retry",
        "retry 2s",
        "retry 2-s",
        "retry -12s",
        "retry 12-2s",  # not in order
        "retry 2-123456s",  # six digits
        "retry 2.5-12s",
        "retry +2-12s",
        "retry 2 - 12s",
        "retry 2-12 s",
        "retry 2-12",
        "Retry 2-12s",
        "retry  2-12s",
        "retry 2-12s.",
        "retry 2-12s ",
        "retry 2-12s\n",
        "\nretry 2-12s",
        "restarting, retry 2-12s",
        "restarting;retry 2-12s",
        "do not retry 2-12s",
        "retry 2-12s; server restarting",
        "retry \u0662-\u0669s",  # digits, but not ASCII
    ],
)
def test_a_reason_without_valid_advice_parses_to_none(reason):
    assert RetryAdvice.parse(reason) is None


@given(seconds, seconds, st.text(st.characters(codec="utf-8"), max_size=MAX_TEXT))
def test_advice_round_trips_and_fits_into_a_close(one, other, text):
    text = text.encode()[:MAX_TEXT].decode(errors="ignore")
    advice = RetryAdvice(min(one, other), max(one, other))
    reason = advice.reason(text)
    assert reason.startswith(text)
    assert len(reason.encode()) <= 123
    assert RetryAdvice.parse(reason) == advice


@given(st.text())
def test_parsing_advice_never_fails(reason):
    advice = RetryAdvice.parse(reason)
    assert advice is None or 0 <= advice.earliest <= advice.latest <= MAX_SECONDS


def test_parsing_advice_takes_linear_time():
    # Quadratic if each match attempt runs on to the end of the text.
    assert takes_linear_time(RetryAdvice.parse, lambda count: "; retry 99999-99999" * count, 50_000)


def test_advice_alone_needs_no_text():
    assert RetryAdvice(2, 12).reason() == "retry 2-12s"
    assert RetryAdvice(2, 12).reason("server restarting") == "server restarting; retry 2-12s"


@pytest.mark.parametrize("window", [(-1, 2), (2, 1), (0, 100000)])
def test_a_window_that_cannot_be_written_is_refused(window):
    with pytest.raises(ValueError, match="earliest and latest"):
        RetryAdvice(*window).reason()


def test_the_limit_of_a_text_counts_bytes_of_utf8():
    assert len(RetryAdvice(99999, 99999).reason("x" * MAX_TEXT).encode()) == 123
    for text in ("x" * (MAX_TEXT + 1), "ü" * 52):
        with pytest.raises(ValueError, match="text must be at most 103 bytes"):
            RetryAdvice(0, 1).reason(text)
    with pytest.raises(ValueError, match=r"^text contains a lone surrogate"):
        RetryAdvice(0, 1).reason("x\ud800")
