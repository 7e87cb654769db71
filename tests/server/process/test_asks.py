"""What a dashboard asks of the supervisor: the answers, and a supervisor that does not answer."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import pytest

from endwell.server.drain.timetable import Drain
from endwell.server.process import control
from endwell.server.process.channel import Channel
from endwell.server.process.control import ProcessControl
from endwell.server.process.supervisor import Supervisor
from tests.pair import until, within


def supervisor(**state):
    """A supervisor without processes."""
    made = object.__new__(Supervisor)
    started = []
    vars(made).update(
        {"_stopping": False, "_up": True, "_restarting": False, "_restart_again": False, **state}
    )
    made._start = lambda number, generation: started.append((number, generation))
    made._advance = lambda: started.append("restart")
    return made, started


def worker(**state):
    return SimpleNamespace(**{"number": 1, "generation": 0, "leaving": False, "succeeded": False, **state})


def test_a_drain_starts_the_successor_and_a_restart_all_workers():
    asked, started = supervisor()
    assert asked._asked(worker(), "drain") is None
    assert started == [(1, 0)]
    assert asked._asked(worker(), "restart") is None
    assert started[1:] == ["restart"]


@pytest.mark.parametrize(
    ("what", "state", "of_worker", "refusal"),
    [
        ("drain", {}, {"succeeded": True}, "the worker is being replaced already"),
        ("drain", {}, {"leaving": True}, "the worker is stopping"),
        ("drain", {"_restarting": True}, {}, "the workers are starting"),
        ("drain", {"_up": False}, {}, "the workers are starting"),
        ("drain", {"_stopping": True}, {}, "the worker is stopping"),
        ("restart", {"_stopping": True}, {}, "the server is stopping"),
        ("dance", {}, {}, "the supervisor does not know this action"),
        (None, {}, {}, "the supervisor does not know this action"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(what, state, of_worker, refusal):
    asked, started = supervisor(**state)
    assert asked._asked(worker(**of_worker), what) == refusal
    assert started == []


async def test_a_late_answer_is_not_that_of_the_next_ask(monkeypatch):
    near, far = socket.socketpair()
    ours, theirs = Channel(near), Channel(far)
    process = ProcessControl(Drain(), ours)
    loop = asyncio.get_running_loop()
    process.begin(loop, asyncio.current_task(), None)
    try:
        with monkeypatch.context() as patched:
            # A supervisor that was started before an update never answers.
            patched.setattr(control, "SUPERVISOR_TIME", 0.01)
            assert await within(process.ask_supervisor("drain")) == "the supervisor does not answer"
        asking = asyncio.create_task(process.ask_supervisor("restart"))
        heard = []
        await until(lambda: heard.extend(theirs.receive()) or len(heard) == 2)
        assert heard == [("ask", "drain"), ("ask", "restart")]
        theirs.send("answer", "the workers are starting")
        theirs.send("answer")
        assert await within(asking) is None
    finally:
        loop.remove_reader(ours.fileno())
        ours.close()
        theirs.close()
