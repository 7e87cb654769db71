"""Both transports."""

from __future__ import annotations

import pytest

from tests.raw import PLAIN, Transport, wss

# So that its asserts show what they compared.
pytest.register_assert_rewrite("tests.endings.witness")


@pytest.fixture(params=["ws", "wss"])
def transport(request: pytest.FixtureRequest) -> Transport:
    return PLAIN if request.param == "ws" else wss()
