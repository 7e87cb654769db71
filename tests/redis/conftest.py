from __future__ import annotations

import pytest

from endwell.rooms import returning
from tests.rooms.patience import patient

from .server import RedisServer

__all__ = ["patient", "redis", "refused"]


@pytest.fixture
def redis():
    """A server of its own, which the test may kill."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def refused(monkeypatch):
    """For a bus that is not to be connected: start() does not wait, and the first attempt gets its answer.

    Only the reason of the first failure is logged, and on a busy machine that could be the time limit.
    """
    monkeypatch.setattr(returning, "WAIT_TIME", 0.2)
    monkeypatch.setattr(returning, "CONNECT_TIME", 60.0)
