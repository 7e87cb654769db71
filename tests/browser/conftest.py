"""Browsers for the tests: one process of each, shared by all tests that do not end it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.driver import Browser, running

BROWSERS = ("chromium", "firefox")


@pytest.fixture(scope="session", params=BROWSERS)
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """A running browser, shared by the tests."""
    with running(request.param) as made:
        yield made


@pytest.fixture(params=BROWSERS)
def name(request: pytest.FixtureRequest) -> str:
    """The name of a browser, for a test that starts its own."""
    return request.param
