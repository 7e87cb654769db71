"""Two cores back to back, without sockets: in any order of events, both end."""

from __future__ import annotations

import errno
import re

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from endwell.ending import Close
from endwell.errors import UnsupportedByProtocol
from endwell.options import Options
from endwell.protocol.closing import State
from endwell.protocol.connection import Connection
from endwell.protocol.deadline import NEVER
from endwell.wire.codec import Codec
from endwell.wire.frames import CLOSE
from endwell.wire.hixie import Hixie

OPTIONS = Options(
    ping_interval=5,
    ping_timeout=5,
    close_timeout=3,
    write_timeout=4,
    max_queue=3,
    write_limit=50,
    max_size=200,
)
CODES = st.sampled_from([1000, 1001, 1011, 3000, 4999, None])


class Side:
    """One core, the wire from it, and what its driver received."""

    def __init__(self, client: bool, codec: type[Codec], options: Options, now: float = 0.0) -> None:
        self.core = Connection(client, options, now)
        self.core.connected = True
        self.core.accept(codec(client, OPTIONS.max_size), now)
        self.wire = b""
        self.left = b""
        self.fin = False
        self.closed = False
        self.peer_events: list[object] = []
        self.listener = codec(not client, None)
        self.sent: list[object] = []
        self.received: list[object] = []
        self.noisy = False
        self.ending = None
        self.endings = 0

    def settle(self, room: int, now: float) -> None:
        """What a driver does: move at most ``room`` bytes to the wire, then FIN if wanted."""
        core = self.core
        if core.wants_write() and not self.closed:
            data = b"".join(core.outbox.buffers())[:room]
            core.sent(len(data), now)
            assert not (data and self.fin), "bytes after FIN"
            self.wire += data
            self.left += data
            self.listener.receive(data, self.peer_events)
        if core.half_close and not core.outbox.size:
            self.fin = True
        if core.state is State.ENDED and not self.closed:
            self.closed = self.fin = True
        if core.ending is not None and self.ending is None:
            self.ending = core.ending
            self.endings += 1

    @property
    def opcodes(self) -> list[int]:
        """The frames that were sent whole; parsed without the package, which stops at a Close."""
        found, position = [], 0
        while position + 2 <= len(self.left):
            length, size = self.left[position + 1] & 0x7F, 2
            if length == 126:
                length, size = int.from_bytes(self.left[position + 2 : position + 4], "big"), 4
            size += 4 if self.core.client else 0
            found.append(self.left[position] & 0x0F)
            position += size + length
        return found


@settings(max_examples=3 * settings.default.max_examples, stateful_step_count=40)
class TwoCores(RuleBasedStateMachine):
    codec = Codec
    options = OPTIONS

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.sides = [Side(client, self.codec, self.options) for client in (False, True)]
        self.eof_delivered = [False, False]

    def side(self, which: int) -> Side:
        return self.sides[which]

    @rule(which=st.integers(0, 1), message=st.one_of(st.text(max_size=30), st.binary(max_size=30)))
    def send(self, which, message):
        side = self.side(which)
        if side.core.send(message, self.now):
            side.sent.append(message)

    @rule(which=st.integers(0, 1), code=CODES)
    def close(self, which, code):
        self.side(which).core.close(Close(code, "" if code is None else "why"), self.now)

    @rule(which=st.integers(0, 1))
    def ping(self, which):
        self.side(which).core.ping(None, self.now)

    @rule(which=st.integers(0, 1))
    def read(self, which):
        side = self.side(which)
        if side.core.inbox:
            side.received.append(side.core.inbox.popleft())

    @rule(which=st.integers(0, 1), room=st.integers(0, 100))
    def write(self, which, room):
        self.side(which).settle(room, self.now)

    @rule(which=st.integers(0, 1), count=st.integers(1, 100))
    def deliver(self, which, count):
        """Deliver bytes from one side's wire to the other."""
        here, there = self.side(which), self.side(1 - which)
        if there.closed or not there.core.wants_read():
            return
        data, here.wire = here.wire[:count], here.wire[count:]
        if data:
            there.core.receive(data, self.now)
        elif here.fin and not self.eof_delivered[1 - which]:
            self.eof_delivered[1 - which] = True
            there.core.eof(self.now)

    @rule(which=st.integers(0, 1), noise=st.binary(min_size=1, max_size=20))
    @precondition(lambda self: not self.side(0).closed or not self.side(1).closed)
    def noise(self, which, noise):
        """A peer that breaks rules; its wire cannot be parsed afterwards."""
        here = self.side(which)
        if here.wire or here.closed:
            return
        self.side(1 - which).noisy = True
        self.side(1 - which).core.receive(noise, self.now)

    @rule(which=st.integers(0, 1))
    def reset(self, which):
        self.side(which).core.lost(ConnectionResetError(errno.ECONNRESET, "reset"), self.now)

    @rule(which=st.integers(0, 1))
    def broken(self, which):
        core = self.side(which).core
        core.broken(BrokenPipeError(errno.EPIPE, "pipe"), self.now)
        core.lost(BrokenPipeError(errno.EPIPE, "pipe"), self.now)

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds):
        self.now += seconds
        for side in self.sides:
            side.core.tick(self.now)

    @invariant()
    def at_most_one_close_in_each_direction(self):
        for side in self.sides:
            assert CLOSE not in side.opcodes[:-1], "something followed the Close"

    @invariant()
    def at_most_one_ending_and_no_deadline_after_it(self):
        for side in self.sides:
            assert side.endings <= 1
            assert side.core.ending is None or side.core.ending is side.core.ending
            if side.core.state is State.ENDED:
                assert side.core.deadline == NEVER
            else:
                assert side.core.deadline != NEVER

    @invariant()
    def frames_are_sent_in_order(self):
        for side in self.sides:
            left = [event for event in side.peer_events if isinstance(event, str | bytes)]
            assert left == side.sent[: len(left)]

    @invariant()
    def messages_are_delivered_in_order_and_once(self):
        for here, there in (self.sides, self.sides[::-1]):
            if not there.noisy:
                sent = iter(here.sent)
                assert all(message in sent for message in (*there.received, *there.core.inbox))

    def teardown(self):
        """Left alone, both sides end within a bounded number of ticks."""
        for _ in range(20):
            for side in self.sides:
                side.settle(10_000, self.now)
                side.core.inbox.clear()
            deadlines = [side.core.deadline for side in self.sides if side.core.deadline != NEVER]
            if not deadlines:
                break
            self.now = max(self.now, min(deadlines))
            for side in self.sides:
                side.core.tick(self.now)
        for side in self.sides:
            assert side.core.state is State.ENDED
            assert side.endings == 1


class TwoOldCores(TwoCores):
    """The same in hixie-76: text only, no pings, a Close without code and reason."""

    codec = Hixie
    # Only this timeout ends a connection without messages.
    options = OPTIONS.replace(idle_timeout=10)

    @rule(which=st.integers(0, 1), message=st.text(max_size=30))
    def send(self, which, message):
        super().send(which, message)

    @rule(which=st.integers(0, 1))
    def ping(self, which):
        if self.side(which).core.is_open:
            with pytest.raises(UnsupportedByProtocol):
                super().ping(which)

    @invariant()
    def at_most_one_close_in_each_direction(self):
        for side in self.sides:
            *texts, rest = re.split(rb"\0[^\xff]*\xff", side.left)
            assert not any(texts), "something followed the Close"
            assert rest[:1] == b"\0" or b"\xff\0".startswith(rest)


TestTwoCores = TwoCores.TestCase
TestTwoOldCores = TwoOldCores.TestCase
