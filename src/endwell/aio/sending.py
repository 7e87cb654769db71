"""How what is awaited hands over its value, and how a function says that it is to be awaited."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["hasten", "mark"]


def hasten() -> None:
    """Let ``Receive`` and ``Done`` return their value as a coroutine does.

    Here there is nothing to do: a value travels in a StopIteration. Compiled,
    ``_sending.pyx`` fills the slot that coroutines have for it, and which Cython has
    no name for; it saves an exception for each message.
    """


def mark(function: Callable[..., Any]) -> None:
    """Have ``inspect.iscoroutinefunction`` (Python 3.11: asyncio's) say so of a plain function that returns a coroutine.

    ``unittest.mock`` asks it.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
