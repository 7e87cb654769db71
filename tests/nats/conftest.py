from __future__ import annotations

import pytest

from tests.rooms.patience import patient

from .server import NatsServer

__all__ = ["nats", "patient"]


@pytest.fixture
def nats():
    """A server of its own, which the test may kill."""
    server = NatsServer()
    server.start()
    yield server
    server.close()
