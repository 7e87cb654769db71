"""``pytest --once`` leaves out repetitions of a behaviour, and never a behaviour; ``--rest`` runs what it left out."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies

from tests.selection import MEMORY, once, rest


class Item:
    """The part of a pytest item that the selection uses."""

    def __init__(self, name, *, marker=None, obj=None, **params):
        self.nodeid = f"tests/test_x.py::{name}[{'-'.join(map(str, params.values()))}]"
        self.callspec = SimpleNamespace(params=params)
        self.obj = obj
        self._marker = marker

    def get_closest_marker(self, name):
        return name if name == self._marker else None


def kept(items):
    return once(items)[0]


def test_one_combination_of_the_axes_is_kept_for_each_case():
    axes = product(["asyncio", "sync"], ["client", "server"], [1000, 1001, [1002]])
    items = [Item("test_a", face=face, role=role, code=code) for face, role, code in axes]
    selected, left_out = once(items)
    assert len(selected) == 3  # the list is not hashable, but the same object in each combination
    assert {str(item.callspec.params["code"]) for item in selected} == {"1000", "1001", "[1002]"}
    assert [item for item in items if item not in selected] == left_out


def test_equal_values_of_different_types_are_different_cases():
    assert len(kept([Item("test_a", value=value) for value in (1, True, 1.0)])) == 3


def test_the_selection_contains_each_value_of_an_axis():
    items = [Item(f"test_{number}", face=face) for number in range(64) for face in ("asyncio", "sync")]
    assert {item.callspec.params["face"] for item in kept(items)} == {"asyncio", "sync"}
    assert len(kept(items)) == 64


def test_the_current_protocol_is_preferred_to_old_ones():
    old_and_new = [
        Item(f"test_{number}", way=way) for number in range(20) for way in ("hixie-76", "ws", "hybi-03")
    ]
    assert {item.callspec.params["way"] for item in kept(old_and_new)} == {"ws"}
    assert len(kept([Item("test_a", way=way) for way in ("hixie-75", "hixie-76")])) == 1


def test_an_exhaustive_test_is_left_out():
    assert kept([Item("test_a", marker="exhaustive", size=1)]) == []


def test_a_test_that_waits_runs_in_memory_and_no_other_does():
    transports = ("ws", "wss", MEMORY)
    waiting = [Item("test_a", marker="waits", transport=transport) for transport in transports]
    assert [item.callspec.params["transport"] for item in kept(waiting)] == [MEMORY]
    for number in range(20):
        others = [Item(f"test_{number}", transport=transport) for transport in transports]
        assert [item.callspec.params["transport"] in {"ws", "wss"} for item in kept(others)] == [True]
    assert len(kept([Item("test_b", marker="waits", transport="wss")])) == 1


def test_a_virtual_clock_is_preferred_to_threads():
    variants = [Item("test_a", marker="virtual_clock", face=face) for face in ("sync", "asyncio")]
    assert [item.callspec.params["face"] for item in kept(variants)] == ["asyncio"]


def test_a_combination_that_is_skipped_is_not_chosen():
    for number in range(20):
        variants = [
            Item(f"test_{number}", face="asyncio"),
            Item(f"test_{number}", marker="skip", face="sync"),
        ]
        assert [item.callspec.params["face"] for item in kept(variants)] == ["asyncio"]
    assert len(kept([Item("test_a", marker="skip", face="sync")])) == 1


def test_the_rest_is_what_was_left_out():
    items = [Item(f"test_{number}", face=face) for number in range(8) for face in ("asyncio", "sync")]
    items.append(Item("test_8", marker="exhaustive", size=1))
    selected, left_out = once(items)
    assert rest(items) == (left_out, selected)


def test_the_rest_has_the_tests_with_examples_because_they_had_fewer():
    @given(strategies.none())
    def examples(none):
        pass

    items = [Item("test_a", obj=examples), Item("test_b", obj=lambda: None)]
    assert once(items) == (items, [])
    assert rest(items) == (items[:1], items[1:])


def test_a_name_that_differs_from_run_to_run_is_refused():
    with pytest.raises(pytest.UsageError, match="differs from run to run"):
        once([Item("test_a", face=object())])
