"""A process that was stopped (SIGSTOP) declares nobody dead before a fresh ping went unanswered."""

from __future__ import annotations

import pytest

from tests.hostile.stopped import stopped

# The peer that lives answers within TIMEOUT, also where the machine stalls; the stop is longer than that.
SECONDS, INTERVAL, TIMEOUT = 4.0, 0.5, 3.0
#: Seconds by which a machine may be late with anything.
LATE = 10.0


@pytest.mark.parametrize("role", ["server", "client"])
async def test_after_a_stop_who_lives_is_kept_and_who_is_dead_is_given_up_after_a_fresh_ping(role):
    report = await stopped(role, SECONDS, INTERVAL, TIMEOUT)
    assert report.kept
    assert report.pinged < INTERVAL + LATE
    # Not by the ping that was unanswered when it was stopped.
    assert TIMEOUT - 0.01 < report.ended < INTERVAL + TIMEOUT + LATE
    assert report.ending["cause"] == "keepalive_timeout"
    assert SECONDS - 1.1 < report.ending["stalled"] < SECONDS + LATE
