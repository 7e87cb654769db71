"""How awaitables return their value, and how functions are marked as coroutine functions."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["install_am_send", "mark_coroutine_function"]


def install_am_send() -> None:
    """Let ``Receive`` and ``Done`` return their value as a coroutine does.

    The pure build does nothing: a value is returned with StopIteration. In the compiled build
    ``_sending.pyx`` fills the type slot ``am_send``, which Cython cannot express. It saves an exception for
    each message.
    """


def mark_coroutine_function(function: Callable[..., Any]) -> None:
    """Make ``inspect.iscoroutinefunction`` true for a plain function that returns a coroutine.

    ``unittest.mock`` uses it. On Python 3.11 only asyncio's function knows the mark.
    """
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
