"""What processes are told of a key: in turn, by one process after the other."""

from __future__ import annotations

import pytest

from endwell.rooms.present import Left, Present
from endwell.rooms.tellings import Tellings


class Processes:
    """Some processes, and what they were told: the process, the number, the word and the key."""

    def __init__(self, *names):
        self.alive, self.holders, self.told = [*names], {}, []
        self.tellings = Tellings(self._holders, self._choose, self._tell)

    def _holders(self, room, key):
        return self.holders.get(key, [])

    def _choose(self, processes, anyone):
        return next(
            (each for each in (*processes, *(self.alive if anyone else ())) if each in self.alive), None
        )

    def _tell(self, process, number, word, left):
        self.told.append((process, number, word, left.present.key))

    def add(self, word, key, process):
        self.tellings.add(word, Left("a", Present(key, {}, 1), process))

    def end(self, process):
        self.alive.remove(process)
        self.tellings.remove(process)

    def words(self):
        """What was told since the last call."""
        found, self.told = self.told, []
        return [(process, word, key) for process, _, word, key in found]


@pytest.fixture
def two():
    return Processes("one", "two")


def test_the_next_word_of_a_key_waits_for_the_one_before_and_no_other_key_does(two):
    two.add("came", "ada", "one")
    two.add("went", "ada", "two")
    two.add("came", "bob", "two")
    assert two.words() == [("one", "came", "ada"), ("two", "came", "bob")]
    two.tellings.done("one", 1)
    assert two.words() == [("two", "went", "ada")]
    assert two.tellings.last("a", "ada") is not None
    two.tellings.done("two", 3)
    assert two.tellings.last("a", "ada") is None


def test_what_a_process_says_twice_or_of_another_one_ends_nothing(two):
    two.add("came", "ada", "one")
    two.add("went", "ada", "one")
    two.words()
    two.tellings.done("two", 1)
    two.tellings.done("one", 7)
    assert two.words() == []
    two.tellings.done("one", 1)
    two.tellings.done("one", 1)
    assert two.words() == [("one", "went", "ada")]


def test_a_coming_waits_for_a_process_that_has_a_connection_or_for_the_leaving(two):
    for key in ("ada", "bob"):
        two.add("came", key, "one")
    two.words()
    two.end("one")
    assert two.words() == []
    two.holders["ada"] = ["two"]
    two.tellings.look("a", "ada")
    assert two.words() == [("two", "came", "ada")]
    two.add("went", "bob", "one")
    assert two.words() == [("two", "came", "bob")]
    two.tellings.done("two", 4)
    assert two.words() == [("two", "went", "bob")]


def test_what_a_process_may_not_have_got_is_told_again_with_the_same_number(two):
    two.add("came", "ada", "one")
    two.add("came", "bob", "two")
    two.words()
    two.tellings.again("one")
    assert two.told == [("one", 1, "came", "ada")]


def test_all_can_be_told_at_once(two):
    two.add("came", "ada", "one")
    two.add("went", "ada", "one")
    two.add("came", "ada", "two")
    two.words()
    two.tellings.tell_all()
    assert two.words() == [("one", "went", "ada"), ("two", "came", "ada")]
    assert two.tellings.last("a", "ada") is None
