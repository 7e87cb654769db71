"""A network that is lost without a sound: both sides know in time, whatever their applications do."""

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

KEEPALIVE = {"ping_interval": 0.5, "ping_timeout": 0.5}
IN_TIME = sum(KEEPALIVE.values()) + 1.0


def side(prefix: Iterable[str], **how: Any) -> AbstractContextManager[subprocess.Popen[str]]:
    return python("-m", "tests.network.side", json.dumps({**how, "options": KEEPALIVE}), prefix=prefix)


def says(process: subprocess.Popen[str]) -> Any:
    return json.loads(process.stdout.readline())


@pytest.mark.parametrize("blocking", [False, True], ids=["asyncio", "sync"])
@pytest.mark.parametrize(
    ("at_server", "at_client"),
    [("reads", "reads"), ("sleeps", "sleeps"), ("writes", "sleeps"), ("sleeps", "writes")],
)
def test_both_sides_know_within_ping_interval_and_ping_timeout_and_a_second(at_server, at_client, blocking):
    with Network() as network:
        common = {"blocking": blocking, "host": network.address}
        with side(network.server_prefix, role="server", doing=at_server, port=0, **common) as server:
            port = says(server)
            with side(network.client_prefix, role="client", doing=at_client, port=port, **common) as client:
                assert says(client)
                assert says(server)
                # Longer than a peer may be silent: no connection is closed while the network works,
                # and a side that writes has filled all buffers by then.
                time.sleep(IN_TIME)
                cut = time.monotonic()
                network.cut()
                for process in (client, server):
                    told, cause, stalled = says(process)
                    assert cut < told < cut + IN_TIME + stalled  # which a busy machine brings about
                    assert cause == "KEEPALIVE_TIMEOUT"
