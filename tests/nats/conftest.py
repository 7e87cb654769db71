from __future__ import annotations

import pytest

from .server import NatsServer


@pytest.fixture
def nats():
    """A server of its own, which the test may kill."""
    server = NatsServer()
    server.start()
    yield server
    server.close()
