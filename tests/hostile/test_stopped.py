"""After SIGSTOP and SIGCONT no peer times out before a new ping went unanswered."""

from __future__ import annotations

import pytest

from tests.hostile.stopped import stopped

# The live peer answers within TIMEOUT, even on a stalled machine; the stop is longer than that.
SECONDS, INTERVAL, TIMEOUT = 4.0, 0.5, 3.0
#: The seconds by which a machine may be late with anything.
LATE = 10.0


@pytest.mark.parametrize("role", ["server", "client"])
async def test_after_a_sigstop_only_dead_peers_time_out_after_a_new_ping(role):
    report = await stopped(role, SECONDS, INTERVAL, TIMEOUT)
    assert report.kept
    assert report.pinged < INTERVAL + LATE
    # Not by the ping that was unanswered when the process was stopped.
    assert TIMEOUT - 0.01 < report.ended < INTERVAL + TIMEOUT + LATE
    assert report.ending["cause"] == "keepalive_timeout"
    assert SECONDS - 1.1 < report.ending["stalled"] < SECONDS + LATE
