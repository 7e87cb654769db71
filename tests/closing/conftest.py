"""Every ending in both roles, over both transports, in whole segments and octet by octet."""

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


@pytest.fixture(params=[False, True], ids=["whole", "bytewise"])
def bytewise(request: pytest.FixtureRequest) -> bool:
    """Whether the peer sends each octet in a segment of its own."""
    return request.param
