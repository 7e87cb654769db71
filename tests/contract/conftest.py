"""The matrix: {asyncio, sync} x {client, server} x {ws, wss, both over a transport, ws in memory, each old protocol}.

A test that does not fit all of it says less: by the fixture that it takes (``serve``), by
``@pytest.mark.needs("pings", ...)``, what its protocol must have, and by ``lacks``, what not; by
``alike``, that it is long and no matter of the protocol, or that ``tests/contract/endings`` has it in each.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest

from tests.contract.drivers import reason_to_skip
from tests.face import Face
from tests.old import MISSING_FEATURES
from tests.pair import Pair, pair
from tests.raw import TRANSPORTS, Transport

OpenPair = Callable[..., AbstractAsyncContextManager[Pair]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "way" not in metafunc.fixturenames or any("way" in names for names in chosen):
        return
    markers = [*metafunc.definition.iter_markers("needs")], [*metafunc.definition.iter_markers("lacks")]
    needs, lacks = ({what for marker in marks for what in marker.args} for marks in markers)
    spoken = ["13"] if metafunc.definition.get_closest_marker("current_protocol") else MISSING_FEATURES
    versions = [
        version
        for version in spoken
        if lacks <= MISSING_FEATURES[version] and not needs & MISSING_FEATURES[version]
    ]
    ways = ["ws" if version == "13" else version for version in versions]
    metafunc.parametrize("way", [*ways, *(TRANSPORTS[1:] if "ws" in ways else [])], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what a driver cannot do."""
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        name = getattr(item, "originalname", item.name)
        if (reason := reason_to_skip(name, params)) is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, use: Callable[[str], Transport]) -> Transport:
    """Also over an asyncio transport."""
    return use(request.param)


@pytest.fixture(params=[False, True], ids=["whole", "bytewise"])
def bytewise(request: pytest.FixtureRequest) -> bool:
    """Whether the peer sends each octet in a segment of its own."""
    return request.param


@pytest.fixture
def open_pair(role: str, way: tuple[Transport, str], face: Face) -> OpenPair:
    """Opens a connection in either role."""
    transport, version = way
    return partial(pair, role, transport, face, version=version)


@pytest.fixture
def open_server_pair(way: tuple[Transport, str], face: Face) -> OpenPair:
    """Opens a connection as a server: for behaviour of servers only."""
    transport, version = way
    return partial(pair, "server", transport, face, version=version)
