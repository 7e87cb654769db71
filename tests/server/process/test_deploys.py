"""SIGTERM under load, as in benchmarks/drain.py, with fewer clients and shorter times."""

from __future__ import annotations

import pytest

from benchmarks.drain import Scenario, play
from endwell import Drain
from tests.raw import PROMPT


@pytest.fixture(params=["/async", "/threads"])
def base(request):
    """The base path: of coroutines, or of the same handlers as plain functions."""
    return request.param


tls = pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])


#: The drain for clients that behave. It ends long before a fifth of its deadline, the time that a busy
#: handler is given.
PATIENT = Drain(window=1, deadline=600)


@tls
@pytest.mark.timeout(600)
async def test_a_stop_under_load_loses_no_message_and_resets_no_connection(base, tls):
    scenario = Scenario("busy", {("asks", f"{base}/work"): 50}, tls, PATIENT)
    outcome = await play(scenario, 0.3)
    assert outcome.status == 0
    assert all(client.code == 1001 and client.tcp == "fin" for client in outcome.clients)
    assert all(client.asked == client.answered for client in outcome.clients)
    assert outcome.counts["received"] == outcome.counts["answered"] >= 50
    assert outcome.counts["finally"] == outcome.counts["on_close"] == 50
    assert "50 clean" in outcome.report
    assert outcome.seconds < PATIENT.deadline / 3


async def test_pipelined_requests_that_a_handler_received_are_answered(base):
    # A client that always sends a next question is closed after a tenth of the deadline, and gets another
    # tenth.
    drain = Drain(window=1, deadline=60)
    scenario = Scenario("pipelined", {("floods", f"{base}/work"): 20}, drain=drain)
    outcome = await play(scenario, 0.3)
    assert "closed while busy" not in outcome.report
    assert all(client.code == 1001 and client.tcp == "fin" for client in outcome.clients)
    assert outcome.counts["received"] == outcome.counts["answered"] > 0


@tls
async def test_a_stop_ends_at_its_deadline_and_all_cleanup_runs(base, tls):
    stuck = 2
    clients = {
        ("asks", f"{base}/work"): 10,
        ("waits", f"{base}/stuck"): stuck,
        ("deaf", f"{base}/stream"): 2,
        ("holds", f"{base}/work"): 2,
    }
    drain = Drain(window=0.5, deadline=10)
    for _ in range(3):
        outcome = await play(Scenario("misbehaving", clients, tls, drain), 0.3)
        assert outcome.status == 0
        assert outcome.seconds < drain.deadline + PROMPT
        # A fifth of the deadline is the time for clients that behave, and it continues while the machine
        # stalls. So one of several attempts has to run undisturbed.
        if (
            all(client.code == 1001 for client in outcome.kinds("asks", "waits", "holds"))
            and all(client.tcp == "fin" for client in outcome.kinds("asks", "waits"))
            and outcome.counts["received"] == outcome.counts["answered"]
        ):
            break
    else:
        raise AssertionError(f"none was undisturbed: {outcome}")
    assert outcome.counts["on_close"] == len(outcome.clients)
    # A coroutine is cancelled once more when the loop closes; nothing stops a thread that sleeps.
    left = len(outcome.clients) - (stuck if base == "/threads" else 0)
    assert outcome.counts["finally"] == left
    assert f"handlers still running: {stuck} x " in outcome.report


async def test_idle_connections_close_and_reconnect_spread_over_the_window():
    scenario = Scenario("idle", {("waits", "/async/work"): 100}, drain=Drain(window=1, deadline=120, rate=50))
    windows = []
    # A stall of either process can bunch or spread the closings; so one of several stops has to run
    # undisturbed.
    while not any(0.8 <= window <= 1.5 for window in windows) and len(windows) < 5:
        outcome = await play(scenario, 0.1)
        assert all(client.code == 1001 and client.tcp == "fin" for client in outcome.clients)
        # A quarter of them per second. More than 60 in one second has a probability below 1e-9.
        assert max(outcome.returns()) <= 60
        times = sorted(client.closed_at for client in outcome.clients)
        windows.append(times[-1] - times[0])
    assert any(0.8 <= window <= 1.5 for window in windows), windows
