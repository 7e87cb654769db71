"""A process that was stopped (SIGSTOP) declares nobody dead before a fresh ping went unanswered."""

from __future__ import annotations

import pytest

from tests.hostile.stopped import stopped

SECONDS, INTERVAL, TIMEOUT = 2.5, 0.3, 0.3


@pytest.mark.parametrize("role", ["server", "client"])
async def test_after_a_stop_who_lives_is_kept_and_who_is_dead_is_given_up_after_a_fresh_ping(role):
    report = await stopped(role, SECONDS, INTERVAL, TIMEOUT)
    assert report.kept
    assert report.pinged < INTERVAL + 1.0
    assert TIMEOUT - 0.01 < report.ended < INTERVAL + TIMEOUT + 1.0
    assert report.ending["cause"] == "keepalive_timeout"
    assert SECONDS - 1.1 < report.ending["stalled"] < SECONDS + 1.0
