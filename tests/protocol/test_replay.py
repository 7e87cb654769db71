"""A record replays to the same ending: the same code takes the same rows of the closing table."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from endwell.protocol.pause import Pause
from endwell.protocol.recorder import MAX_CUES, MAX_RECORD
from endwell.protocol.replay import replay
from endwell.wire.hixie import Hixie

from .test_two_cores import OPTIONS, TwoCores, TwoOldCores


def check(core):
    """The record of an ended core, as JSON, replays to the same ending."""
    ending = core.ending
    assert (ending.record is None) is ending.ok
    record = ending.record or core.record()
    assert len(json.dumps(dict(record))) <= MAX_RECORD
    assert len(record["cues"]) <= MAX_CUES + 1
    replayed = replay(json.loads(json.dumps(replace(ending, record=record).as_dict())))
    assert replayed.differences() == {}
    assert str(replayed.ending) == str(ending)
    return replayed


class RecordedCores(TwoCores):
    """Whatever happens to two cores, and in whatever order, their records replay."""

    options = OPTIONS.replace(recorder=True, idle_timeout=40, stale_after=25)

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.sides = [type(side)(side.core.client, self.codec, self.options, self.now) for side in self.sides]

    @rule(which=st.integers(0, 1))
    def handled(self, which):
        self.side(which).core.handled(self.now)

    @rule(which=st.integers(0, 1), seconds=st.floats(0.5, 5))
    def stalled(self, which, seconds):
        """One of the processes did not run for a while."""
        began = self.now
        self.now += seconds
        self.side(which).core.stalled(began, seconds, self.now)

    @rule(which=st.integers(0, 1))
    def pause(self, which):
        self.side(which).core.pause(Pause.DELIVERY)

    @rule(which=st.integers(0, 1))
    def resume(self, which):
        self.side(which).core.resume(Pause.DELIVERY)

    @rule(which=st.integers(0, 1), seconds=st.floats(-1, 60))
    def authorize(self, which, seconds):
        self.side(which).core.authorize(self.now + seconds)

    def teardown(self):
        super().teardown()
        for side in self.sides:
            check(side.core)


class RecordedOldCores(RecordedCores, TwoOldCores):
    codec = Hixie


TestRecordedCores = RecordedCores.TestCase
TestRecordedCores.settings = settings(max_examples=300, stateful_step_count=50)
TestRecordedOldCores = RecordedOldCores.TestCase
TestRecordedOldCores.settings = settings(max_examples=50, stateful_step_count=40)
