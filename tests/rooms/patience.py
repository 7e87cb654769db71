"""A busy machine is not a bus that is away."""

from __future__ import annotations

import pytest

from endwell.rooms import registry, returning
from tests.raw import BOUND

__all__ = ["patient"]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait for the server of a bus as long as a test does. A test of a limit sets its own.

    So does a server that stops, for the callbacks of keys that have left.
    """
    monkeypatch.setattr(returning, "WAIT_TIME", 2 * BOUND)
    monkeypatch.setattr(registry, "CALLBACK_TIME", BOUND)
