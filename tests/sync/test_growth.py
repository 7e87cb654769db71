"""Nothing remains of a connection, however it ended; for memory run ``growth`` by hand."""

from __future__ import annotations

import threading

from endwell import sync
from endwell.sync import bridge
from tests.raw import BOUND
from tests.sync.background import until
from tests.sync.growth import WAYS, churn, left, server


def test_threads_descriptors_and_connections_do_not_grow(caplog, monkeypatch):
    monkeypatch.setattr(bridge, "CALLBACK_TIME", BOUND)  # close() returns when the callbacks have returned
    caplog.set_level("CRITICAL")
    with sync.serving(server(), grace=1) as serving:
        address = f"ws://127.0.0.1:{serving.port}"
        churn(address, 4 * len(WAYS))
        until(lambda: not serving.connections)
        before = left()
        churn(address, 25 * len(WAYS))
        until(lambda: not serving.connections)
        after = left()
        # An idle thread may have ended or another one started, but not one per connection.
        assert after.threads <= before.threads + 5
        assert after.descriptors <= before.descriptors
        assert after.bridges <= before.bridges + 2
    until(lambda: not any(thread.name.startswith("endwell handler") for thread in threading.enumerate()))
