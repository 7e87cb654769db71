"""The whole matrix: {asyncio, sync} x {client, server} x {ws, wss}, for every test that does not say less."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest

from tests.face import Face
from tests.pair import Pair, pair
from tests.raw import Transport

Meet = Callable[..., AbstractAsyncContextManager[Pair]]


@pytest.fixture
def meet(role: str, transport: Transport, face: Face) -> Meet:
    """A connection in either role."""
    return partial(pair, role, transport, face)


@pytest.fixture
def serve(transport: Transport, face: Face) -> Meet:
    """A connection of a server: for what only servers have."""
    return partial(pair, "server", transport, face)
