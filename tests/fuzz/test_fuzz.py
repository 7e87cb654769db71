"""A short run of the fuzzer, its corpus, and both builds side by side; ``make fuzz`` runs for long."""

from __future__ import annotations

from importlib.util import find_spec
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.builds import COMPILED, Other, outcome
from tests.fuzz.mutate import WORDS, mutated
from tests.fuzz.run import corpus, ways_of
from tests.fuzz.targets import TARGETS, check

each_target = pytest.mark.parametrize("name", TARGETS)


@pytest.fixture(scope="module")
def other():
    with Other() as other:
        yield other


@each_target
def test_both_builds_give_the_same_result_for_the_corpus_at_every_split(name, other):
    inputs = corpus(name)
    assert inputs
    for data in inputs:
        ours = outcome(name, data, every=len(data) < 150)
        assert not ours.startswith("FIND"), ours
        assert other.outcome(name, data, every=len(data) < 150) == ours


@each_target
def test_a_short_fuzzer_run_finds_nothing(name, other):
    dice = Random(name)
    inputs = corpus(name)
    for _ in range(100):
        data = mutated(dice.choice(inputs), inputs, dice)
        ours = outcome(name, data)
        assert not ours.startswith("FIND"), f"{data!r}\n{ours}"
        assert other.outcome(name, data) == ours, data


def inputs_of(name):
    """Inputs of a peer: corpus inputs, mutated and joined."""
    pieces = st.sampled_from(corpus(name)) | st.sampled_from(WORDS) | st.binary(max_size=8)
    return st.builds(
        lambda start, *rest: start + b"".join(rest), st.sampled_from(corpus(name)), pieces, pieces
    ).flatmap(_damaged)


def _damaged(data):
    """``data`` with one or two octets changed or removed."""
    places = st.integers(0, max(0, len(data) - 1))
    damage = st.lists(st.tuples(places, st.none() | st.integers(0, 255)), max_size=2)
    return damage.map(lambda changes: _changed(data, changes))


def _changed(data, changes):
    made = bytearray(data)
    for at, octet in changes:
        if octet is None:
            del made[at : at + 1]
        else:
            made[at : at + 1] = bytes([octet])
    return bytes(made[:200])


@each_target
def test_both_builds_give_the_same_events_at_every_split(name, other):
    @settings(max_examples=30)
    @given(inputs_of(name))
    def same(data):
        assert other.outcome(name, data, every=True) == check(name, data, every=True)

    same()


def test_the_other_process_runs_the_other_build(other):
    built = find_spec("endwell.wire._payload") is not None
    assert {COMPILED, other.compiled} == ({True, False} if built else {False})


def test_the_paths_of_an_input_are_traced_in_the_pure_build():
    ways = ways_of("close", b"\x03\xe8bye")
    assert any(str(path).endswith("wire/frames.py") for path, *_ in ways) is not COMPILED
