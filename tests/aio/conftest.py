"""Both transports and both roles, for those tests in which they could differ."""

from __future__ import annotations

import pytest

from tests.raw import PLAIN, Transport, wss

# So that its asserts show what they compared.
pytest.register_assert_rewrite("tests.pair")


@pytest.fixture(params=["ws", "wss"])
def transport(request: pytest.FixtureRequest) -> Transport:
    return PLAIN if request.param == "ws" else wss()


@pytest.fixture(params=["server", "client"])
def role(request: pytest.FixtureRequest) -> str:
    """Ours; the raw peer plays the other one."""
    return request.param
