"""Garbage of a failed test is collected with that test, so that no later test fails because of it."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress

import pytest

__all__ = ["pytest_runtest_protocol"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """After a failure, collect garbage; warnings about it, such as of a socket that was not closed, are ignored.

    A traceback keeps the frames of the failed test alive, with the sockets and loops in them. pytest drops it
    when the next test begins, and each warning is an error: a later test would fail, too.
    """
    failures = item.session.testsfailed
    result = yield
    if item.session.testsfailed > failures:
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            with suppress(AttributeError):
                delattr(sys, name)
        unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gc.collect()
        finally:
            sys.unraisablehook = unraisable
    return result
