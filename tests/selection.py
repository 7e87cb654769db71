"""Selects the tests of ``make test``: each behaviour once; and those that it leaves out.

Many behaviours are tested in a product: both faces, both roles, ws and wss, each kind of application.
``make test-all`` runs the whole product. ``pytest --once`` runs one combination for each behaviour and each
of its own cases. The combinations rotate from test to test, so that the selection as a whole contains every
face, role and transport. ``pytest --rest`` runs what ``pytest --once`` does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from zlib import crc32

import hypothesis
import pytest

__all__ = ["MEMORY", "is_virtual", "once", "rest"]

#: The parameters that repeat a behaviour. All others are cases of their own.
AXES = {"application", "bytewise", "face", "host", "role", "transport", "way"}

#: The transport that connects both sides in memory, on a virtual clock. ``pytest --once`` chooses a virtual clock
#: for the tests that are marked ``waits`` or ``virtual_clock``, and for no other.
MEMORY = "ws in memory"

#: The current protocol, for a behaviour that is also tested with the old ones.
CURRENT = {MEMORY, "ws", "wss", "ws over a transport", "wss over a transport"}


def once(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The items to run and the items to leave out."""
    behaviours: dict[Hashable, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if " at 0x" in item.nodeid:
            # Another run would choose another combination, so that `--once` and `--rest` would not run all.
            raise pytest.UsageError(f"the name differs from run to run; use ids=...: {item.nodeid}")
        if not item.get_closest_marker("exhaustive"):
            behaviours[_behaviour(item)].append(item)
    kept = {_choose(variants) for variants in behaviours.values()}
    return [item for item in items if item in kept], [item for item in items if item not in kept]


def rest(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The items to run after those of :func:`once`, and the items to leave out.

    A test with examples runs again, because ``pytest --once`` runs it with fewer examples.
    """
    done = {item for item in once(items)[0] if not hypothesis.is_hypothesis_test(getattr(item, "obj", None))}
    return [item for item in items if item not in done], [item for item in items if item in done]


def is_virtual(item: pytest.Item) -> bool:
    """Whether a test runs on a virtual clock, with its connections in memory. A virtual clock waits for no thread."""
    params = _params(item)
    if item.get_closest_marker("virtual_clock"):
        return params.get("face") != "sync"
    return any(isinstance(value, str) and value == MEMORY for value in params.values())


def _params(item: pytest.Item) -> dict[str, object]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _behaviour(item: pytest.Item) -> Hashable:
    cases = (pair for pair in _params(item).items() if pair[0] not in AXES)
    return item.nodeid.partition("[")[0], *((name, type(value), _key(value)) for name, value in cases)


def _key(value: object) -> Hashable:
    """The identity of a case: the same object in each combination, or an equal one if it is hashable."""
    try:
        hash(value)
    except (TypeError, ValueError):  # ValueError: a memoryview of a bytearray
        return id(value)
    return value


def _choose(variants: list[pytest.Item]) -> pytest.Item:
    waits = any(variants[0].get_closest_marker(name) for name in ("virtual_clock", "waits"))
    fitting = [item for item in variants if is_virtual(item) is waits and not _is_skipped(item)] or variants
    current = [item for item in fitting if _params(item).get("way", "ws") in CURRENT] or fitting
    # A hash of the name, because Python's own hash differs from run to run.
    return current[crc32(variants[0].nodeid.encode()) % len(current)]


def _is_skipped(item: pytest.Item) -> bool:
    return item.get_closest_marker("skip") is not None
