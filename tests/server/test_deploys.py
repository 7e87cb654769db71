"""SIGTERM under load, as benchmarks/drain.py does it, with fewer clients and less time."""

from __future__ import annotations

import pytest

from benchmarks.drain import Scenario, play
from endwell import Drain


@pytest.fixture(params=["/async", "/threads"])
def base(request):
    """Of the paths of coroutines, and of the same handlers as plain functions."""
    return request.param


tls = pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])


@tls
async def test_a_stop_under_load_loses_nothing_and_resets_nobody(base, tls):
    scenario = Scenario("busy", {("asks", f"{base}/work"): 100}, tls, Drain(window=1, deadline=5))
    outcome = await play(scenario, 0.3)
    assert outcome.status == 0
    assert all(client.code == 1001 and client.tcp == "fin" for client in outcome.clients)
    assert all(client.asked == client.answered for client in outcome.clients)
    assert outcome.counts["received"] == outcome.counts["answered"] > 100
    assert outcome.counts["finally"] == outcome.counts["on_close"] == 100
    assert "100 clean" in outcome.report
    assert outcome.seconds < 5


async def test_clients_with_several_questions_on_the_way_get_every_answer_to_what_a_handler_took(base):
    scenario = Scenario("pipelined", {("floods", f"{base}/work"): 50}, drain=Drain(window=1, deadline=15))
    outcome = await play(scenario, 0.3)
    assert "closed while busy" not in outcome.report
    assert all(client.code == 1001 and client.tcp == "fin" for client in outcome.clients)
    assert outcome.counts["received"] == outcome.counts["answered"] > 100


@tls
async def test_a_stop_is_over_at_its_deadline_whoever_misbehaves_and_all_cleanup_runs(base, tls):
    stuck = 2
    clients = {
        ("asks", f"{base}/work"): 20,
        ("waits", f"{base}/stuck"): stuck,
        ("deaf", f"{base}/stream"): 2,
        ("holds", f"{base}/work"): 2,
    }
    drain = Drain(window=0.5, deadline=2.5)
    outcome = await play(Scenario("misbehaving", clients, tls, drain), 0.3)
    assert outcome.status == 0
    polite = outcome.kinds("asks", "waits", "holds")
    assert all(client.code == 1001 for client in polite)
    assert all(client.tcp == "fin" for client in outcome.kinds("asks", "waits"))
    assert outcome.counts["received"] == outcome.counts["answered"]
    assert outcome.counts["on_close"] == len(outcome.clients)
    # A coroutine is cancelled once more when the loop closes; nothing stops a thread that sleeps.
    left = len(outcome.clients) - (stuck if base == "/threads" else 0)
    assert outcome.counts["finally"] == left
    assert f"stuck and left alone: {stuck} x " in outcome.report
    assert outcome.seconds < drain.deadline + 1


async def test_idle_connections_are_spread_over_the_window_and_come_back_spread():
    scenario = Scenario("idle", {("waits", "/async/work"): 200}, drain=Drain(window=1, deadline=5))
    outcome = await play(scenario, 0.1)
    assert all(client.code == 1001 and client.tcp == "fin" for client in outcome.clients)
    times = sorted(client.closed_at for client in outcome.clients)
    assert 0.8 <= times[-1] - times[0] <= 1.5
    assert max(outcome.returns()) <= 500
