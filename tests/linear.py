"""Whether work grows with the size of its input or with the square of it, on a machine of any speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["takes_linear_time"]

T = TypeVar("T")

#: How many parts of the input the work is compared with.
PARTS = 16


def takes_linear_time(work: Callable[[T], object], made: Callable[[int], T], size: int) -> bool:
    """Whether ``work(made(size))`` takes less than 4 times as long as its parts, each of a sixteenth of ``size``.

    Quadratic work takes 16 times as long. Only the time for which this thread had a processor
    counts, and one of several comparisons has to hold, because caches are shared too.
    """
    part, whole = made(size // PARTS), made(size)
    return any(_cost(work, whole) < 4 * PARTS * min(_cost(work, part) for _ in range(3)) for _ in range(5))


def _cost(work: Callable[[T], object], data: T) -> float:
    began = time.thread_time()
    work(data)
    return time.thread_time() - began
