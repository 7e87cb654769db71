"""The checker of the buses finds what it looks for: stories of a member, and the faults in them."""

from __future__ import annotations

import json

import pytest

from benchmarks.faults.witness import Ledger, Member
from endwell.rooms import Position


def arrived(position, replayed=0, lost="fresh"):
    return json.dumps(["arrived", 1, replayed, lost, position])


def gap(lost, position):
    return json.dumps(["gap", lost, position])


#: What a member gets, and the kind of the fault. The room has the messages 1 to 5, and is at e:5.
STORIES = {
    "all": ([arrived("e:0"), "p:1", "p:2", "p:3", "p:4", "p:5"], None),
    "from its position": ([arrived("e:0"), "p:1", "p:2", "p:3", arrived("e:5", 2, 0)], None),
    "an exact gap": ([arrived("e:0"), "p:1", gap(2, "e:3"), "p:4", "p:5"], None),
    "an unknown gap": ([arrived("d:9"), gap(None, "e:2"), "p:3", "p:4", "p:5"], None),
    "one is missing": ([arrived("e:0"), "p:1", "p:2", "p:4", "p:5"], "undetected"),
    "the last one is missing": ([arrived("e:0"), "p:1", "p:2", "p:3", "p:4"], "undetected"),
    "one twice": ([arrived("e:1"), "p:2", "p:3", "p:3", "p:5"], "duplicates"),
    "another order": ([arrived("e:0"), "p:1", "p:3", "p:2", "p:4", "p:5"], "reorderings"),
    "a gap that is too large": ([arrived("e:0"), "p:1", gap(3, "e:4"), "p:4", "p:5"], "gap"),
    "a gap that is too small": ([arrived("e:0"), "p:1", gap(1, "e:3"), "p:4", "p:5"], "gap"),
    "an unknown gap that is none": ([arrived("e:0"), gap(None, "e:2"), "p:3", "p:4", "p:5"], "gap"),
    "a wrong number of repetitions": ([arrived("e:5"), arrived("e:5", 1, 0)], "gap"),
    "what was refused": ([arrived("e:4"), "p:6"], "duplicates"),
}


@pytest.mark.parametrize(("story", "kind"), STORIES.values(), ids=STORIES)
def test_the_checker_finds_each_kind_of_fault_and_no_other(story, kind):
    ledger = Ledger("a story")
    ledger.positions["short"].update({f"p:{number}": Position("e", number) for number in range(1, 6)})
    ledger.refused.add("p:6")
    member = Member(ledger, str, "short")
    for message in story:
        if message.startswith("[") and "arrived" in message:
            # It comes behind what is replayed.
            replayed = json.loads(message)[2] if kind is None else 0
            member._replayed = [f"p:{number}" for number in range(6 - replayed, 6)]
        member._take("the connection", message)
    member.check(Position("e", 5))
    assert (kind in ledger.faults) if kind else not ledger.faults


def test_a_loss_in_spite_of_a_history_that_reaches_far_is_a_fault():
    ledger = Ledger("a story")
    member = Member(ledger, str, "long")
    for message in (arrived("e:0"), gap(2, "e:2")):
        member._replayed = []
        member._take("the connection", message)
    assert set(ledger.faults) == {"history"}
