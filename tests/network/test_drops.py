"""The network is lost silently: both sides detect it in time, whatever their applications do."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.cli.process import python
from tests.network.namespaces import Network

#: A stall of less than 2.5 s does not end the connection before the network is lost. The other timeouts are
#: too long to end a connection within the permitted time.
OPTIONS = {"ping_interval": 0.5, "ping_timeout": 2.5, "close_timeout": 60, "write_timeout": 60}
IN_TIME = OPTIONS["ping_interval"] + OPTIONS["ping_timeout"] + 1.0
ATTEMPTS = 5


def side(prefix: Iterable[str], **how: Any) -> AbstractContextManager[subprocess.Popen[str]]:
    return python("-m", "tests.network.side", json.dumps({**how, "options": OPTIONS}), prefix=prefix)


def says(process: subprocess.Popen[str]) -> Any:
    return json.loads(process.stdout.readline())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("blocking", [False, True], ids=["asyncio", "sync"])
@pytest.mark.parametrize(
    ("at_server", "at_client"),
    [("reads", "reads"), ("sleeps", "sleeps"), ("writes", "sleeps"), ("sleeps", "writes")],
)
def test_both_sides_detect_the_loss_by_keepalive_plus_a_second(at_server, at_client, blocking):
    # A process that stalls for less than a second is told late, and one that stalls for longer is given up early.
    # So one of several attempts has to be undisturbed.
    seen = []
    for _ in range(ATTEMPTS):
        seen.append(lose_a_network(at_server, at_client, blocking))
        if all(0 < told < IN_TIME + excused(stalled) for told, stalled in seen[-1]):
            return
    raise AssertionError(f"seconds after the loss until each side was told, and that it stalled: {seen}")


def excused(stalled: float) -> float:
    """The seconds for a stall that the connection noticed: it sends another ping, which has all its time."""
    return stalled + OPTIONS["ping_timeout"] if stalled else 0.0


def lose_a_network(at_server: str, at_client: str, blocking: bool) -> list[tuple[float, float]]:
    """For both sides: the seconds from the loss until it was told, and for how long it stalled itself."""
    with Network() as network:
        common = {"blocking": blocking, "host": network.address}
        with side(network.server_prefix, role="server", doing=at_server, port=0, **common) as server:
            port = says(server)
            with side(network.client_prefix, role="client", doing=at_client, port=port, **common) as client:
                assert says(client)
                assert says(server)
                # Longer than the deadline for a silent peer: no connection is closed while the network
                # works, and by then a writing side has filled all buffers.
                time.sleep(IN_TIME)
                network.cut()
                cut = time.monotonic()
                both = [says(process) for process in (client, server)]
    if all(told > cut for told, _, _ in both):
        assert {cause for _, cause, _ in both} == {"KEEPALIVE_TIMEOUT"}
    return [(told - cut, stalled) for told, _, stalled in both]
