"""Stalls the event loop once in each test: ``pytest -p tests.stalls tests/FOLDER``.

A test that fails only then depends on the speed of the machine, or the library does. The turn and the time are random.
The report of a failed test has them, and ``--stall=TURN:SECONDS`` stalls each test in the same way.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterator

import pytest

from endwell.aio.virtual import VirtualLoop

#: Most tests of real sockets take fewer turns.
TURNS = 150
#: CONTRIBUTING.md: a timeout that must not expire while the test's peer acts is 2.5 s or longer.
SECONDS = (0.3, 0.6, 1.2, 2.3)


class _Stall:
    turn, seconds, turns = 0, 0.0, 0


_run_once = asyncio.BaseEventLoop._run_once  # type: ignore[attr-defined]


def _stalling(self: asyncio.BaseEventLoop) -> None:
    if not isinstance(self, VirtualLoop):  # its clock would not notice it
        _Stall.turns += 1
        if _Stall.turns == _Stall.turn:
            time.sleep(_Stall.seconds)
    _run_once(self)


asyncio.BaseEventLoop._run_once = _stalling  # type: ignore[attr-defined]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stall", metavar="TURN:SECONDS", help="when and for how long: tests/stalls.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    if given := item.config.getoption("--stall"):
        turn, _, seconds = given.partition(":")
        _Stall.turn, _Stall.seconds = int(turn), float(seconds)
    else:
        # As often in one of the first three turns as in one of the next nine.
        _Stall.turn, _Stall.seconds = (
            int(math.exp(random.uniform(0, math.log(TURNS)))),
            random.choice(SECONDS),
        )
    _Stall.turns = 0
    try:
        return (yield)
    finally:
        if _Stall.turns >= _Stall.turn:
            item.add_report_section("call", "stall", f"--stall={_Stall.turn}:{_Stall.seconds}")
