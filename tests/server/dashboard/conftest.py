from __future__ import annotations

import pytest

from endwell.server.dashboard import workers
from tests.raw import BOUND
from tests.rooms.patience import patient

__all__ = ["patient", "unhurried"]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """No process counts as missing, and nothing that one leaves gets lost, because the machine is busy."""
    for name in ("TIME_LIMIT", "START_TIME", "LEAVE_TIME"):
        monkeypatch.setattr(workers, name, BOUND)
