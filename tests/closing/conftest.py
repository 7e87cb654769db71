"""Every ending in both roles, over both transports, in whole segments and octet by octet."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["whole", "bytewise"])
def bytewise(request: pytest.FixtureRequest) -> bool:
    """Whether the peer sends each octet in a segment of its own."""
    return request.param
