"""The deadlines of a connection, with the defaults and with shorter timeouts: no wait is unbounded."""

from __future__ import annotations

import pytest

from endwell.ending import Cause, Close
from endwell.errors import BadRequest
from endwell.options import Options
from endwell.protocol.connection import Connection
from endwell.protocol.deadline import NEVER
from endwell.wire.codec import Codec
from endwell.wire.hixie import Hixie

ASKED_FOR_5_S = {"ping_interval": 2.0, "ping_timeout": 2.0, "write_timeout": 4.0}


@pytest.fixture(params=[False, True], ids=["server", "client"])
def client(request):
    return request.param


def opened(client, **options):
    core = Connection(client, Options(**options), 0.0)
    core.connected = True
    core.accept(Codec(client), 0.0)
    return core


def write_all(core, now):
    """The kernel accepts everything that is queued."""
    if core.outbox.size:
        core.sent(core.outbox.size, now)


def seconds_to_the_end(core, now, answers=None, heard=lambda now: None):
    """Seconds until the end if only the clock advances from ``now``; ``answers`` adds other events."""
    began = now
    for _ in range(1000):
        assert core.deadline != NEVER, "there is no deadline"
        now = max(now, core.deadline)
        core.tick(now, heard(now))
        if answers is not None:
            answers(core, now)
        if core.ended:
            return now - began
    pytest.fail("the connection never ends")


def opening(client):
    return Connection(client, Options(), 0.0)


def opening_half_sent(client):
    core = opening(client)
    core.open(b"x" * 100)
    core.sent(50, 0.0)
    return core


def refused(client):
    core = opening(False)
    core.refuse(b"HTTP/1.1 400 \r\n\r\n", 0.0, BadRequest())
    return core


def closing(client):
    core = opened(client)
    core.close(Close(1000, ""), 0.0)
    write_all(core, 0.0)
    return core


def closing_and_blocked(client):
    core = opened(client)
    core.close(Close(1000, ""), 0.0)
    core.sent(0, 0.0)
    return core


def lingering(client):
    core = opened(client)
    core.receive(Codec(not client).close(Close(1000)), 0.0)
    write_all(core, 0.0)
    return core


def lingering_for_a_fault(client):
    core = opened(client)
    core.receive(b"\xff\xff", 0.0)
    write_all(core, 0.0)
    return core


PHASES = {
    opening: 10,
    opening_half_sent: 10,
    refused: 10,
    closing: 10,
    closing_and_blocked: 10,
    lingering: 10,
    lingering_for_a_fault: 10,
}


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_each_phase_of_both_handshakes_ends_after_10_s_by_default(phase, client):
    assert seconds_to_the_end(phase(client), 0.0) <= PHASES[phase] + 0.01


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_a_peer_that_keeps_sending_does_not_extend_those_deadlines(phase, client):
    core, now = phase(client), 0.0
    while not core.ended:
        now += 0.5
        core.receive(Codec(not client).ping(b""), now)
        core.tick(now)
        assert now <= PHASES[phase] + 0.5


def silent(core):
    write_all(core, 0.0)


def silent_with_a_full_queue(core):
    core.send(bytes(200_000), 0.0)
    core.sent(1000, 0.0)
    core.sent(0, 0.0)


def silent_in_the_middle_of_a_message(core):
    core.receive(Codec(not core.client).message("x" * 100)[:50], 0.0)


def silent_behind_a_full_inbox(core):
    for _ in range(core.options.max_queue):
        core.receive(Codec(not core.client).message("x"), 0.0)
    assert not core.wants_read()


@pytest.mark.parametrize("options", [{}, ASKED_FOR_5_S], ids=["by default", "asked for 5 s"])
@pytest.mark.parametrize(
    "before",
    [silent, silent_with_a_full_queue, silent_in_the_middle_of_a_message, silent_behind_a_full_inbox],
    ids=lambda before: before.__name__,
)
def test_a_dead_peer_is_closed_within_45_s_or_the_configured_5_s(before, options, client):
    core = opened(client, **options)
    before(core)
    # Its kernel acknowledges nothing either, which is the only evidence behind a full inbox.
    took = seconds_to_the_end(core, 0.0, heard=lambda now: 0.0)
    assert took <= (5 if options else 45)
    assert core.ending.cause in (Cause.KEEPALIVE_TIMEOUT, Cause.WRITE_TIMEOUT)


@pytest.mark.parametrize("keepalive", [True, False])
@pytest.mark.parametrize("options", [{}, ASKED_FOR_5_S], ids=["by default", "asked for 5 s"])
def test_a_peer_that_never_reads_is_closed_within_45_s_or_5_s(options, keepalive, client):
    core = opened(client, **options | ({} if keepalive else {"ping_interval": None}))
    silent_with_a_full_queue(core)

    def talks(core, now):
        core.receive(Codec(not client).ping(b"x"), now)

    assert seconds_to_the_end(core, 0.0, talks) <= (5 if options else 45)
    assert core.ending.cause is Cause.WRITE_TIMEOUT


def test_a_peer_that_dies_after_a_pong_is_closed_as_soon(client):
    core = opened(client)
    core.tick(20.0)
    write_all(core, 20.0)
    core.receive(Codec(not client).pong(core.last_payload), 20.1)
    assert seconds_to_the_end(core, 20.1) <= 45


def test_an_old_protocol_without_pings_has_the_other_deadlines():
    core = Connection(False, Options(), 0.0)
    core.accept(Hixie(False), 0.0)
    core.send("x" * 100, 0.0)
    core.sent(0, 0.0)
    assert seconds_to_the_end(core, 0.0) == 30
    core = Connection(False, Options(), 0.0)
    core.accept(Hixie(False), 0.0)
    core.close(Close(1000, ""), 0.0)
    assert seconds_to_the_end(core, 0.0) <= 10
