"""Measures whether the cost of work is linear in the size of its input, on a machine of any speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["takes_linear_time"]

T = TypeVar("T")

#: The number of parts of the input.
PARTS = 16


def takes_linear_time(work: Callable[[T], object], make_input: Callable[[int], T], size: int) -> bool:
    """Whether ``work(make_input(size))`` costs less than 4 times as much as its ``PARTS`` parts together.

    Quadratic work costs 16 times as much. Only the CPU time of this thread counts. One of five comparisons
    must hold, because other processes share the caches.
    """
    part, whole = make_input(size // PARTS), make_input(size)
    return any(_cost(work, whole) < 4 * PARTS * min(_cost(work, part) for _ in range(3)) for _ in range(5))


def _cost(work: Callable[[T], object], data: T) -> float:
    began = time.thread_time()
    work(data)
    return time.thread_time() - began
