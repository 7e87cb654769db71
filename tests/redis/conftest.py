from __future__ import annotations

import pytest

from .server import RedisServer


@pytest.fixture
def redis():
    """A server of its own, which the test may kill."""
    server = RedisServer()
    server.start()
    yield server
    server.close()
