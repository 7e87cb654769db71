"""The metrics of a server for OpenTelemetry are those of its page, of one process."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref

import pytest
from opentelemetry.metrics import NoOpMeterProvider

from endwell import Server, connect, otel
from endwell.metrics.families import ENDING, ROUTE
from endwell.metrics.table import Table, shared_file
from endwell.otel.metrics import ServerMetrics
from endwell.server.metering import own_samples
from tests.otel.signals import Signals
from tests.pair import idle, nothing_left_behind, until, within
from tests.raw import BOUND

LABELS = {"http.route": "route", "http.response.status_code": "status"}


def instrumented(face=None):
    signals, server = Signals(), Server()
    otel.instrument(server, **signals.providers)

    async def script(ws, name):
        async for message in ws:
            await ws.send(message)

    if face is not None:
        server.websocket("/{name}")(face.handler(script))
    return server, signals


def collected(signals):
    """The points of each metric."""
    data = signals.reader.get_metrics_data()
    if data is None:
        return {}
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    return {metric.name: (metric.unit, list(metric.data.data_points)) for metric in scope.metrics}


def rows(found):
    """The samples of the page that the metrics have, in the same form."""
    samples = {}
    for name, (_, points) in found.items():
        for point in points:
            if hasattr(point, "bucket_counts"):
                continue
            labels = {
                LABELS.get(key, key.removeprefix("endwell.")): value
                for key, value in point.attributes.items()
            }
            samples[name, frozenset((key, str(value)) for key, value in labels.items())] = point.value
    return samples


def expected(server):
    """The samples of the page that are observed, by the names of OpenTelemetry."""
    samples = {}
    for sample, found in server.metrics.items():
        if sample.endswith("_bucket") or sample.startswith("endwell_connection_duration"):
            continue
        name = sample.removesuffix("_total").replace("_seconds_", ".").removesuffix("_seconds")
        for row in found:
            labels = frozenset((key, value) for key, value in row["labels"].items() if value)
            samples[name.replace("_", ".", 1), labels] = row["value"]
    return samples


async def test_the_metrics_are_those_of_the_page(face):
    server, signals = instrumented(face)
    async with nothing_left_behind(), server.serving():
        url = f"ws://127.0.0.1:{server.port}/"
        async with connect(f"{url}a") as ws, connect(f"{url}b", ping_interval=None) as other:
            await ws.send("hello")
            assert await within(ws.recv()) == "hello"
            with pytest.raises(Exception, match="404"):
                await connect(f"{url}no/where")
            await other.close(4321)
            await until(lambda: len(server.connections) == 1)
            # In the loop of the server, and as an exporter does it.
            for found in (collected(signals), await asyncio.to_thread(collected, signals)):
                assert {name: value for name, value in rows(found).items() if "stalled" not in name[0]} == {
                    name: value for name, value in expected(server).items() if "stalled" not in name[0]
                }
        await until(lambda: len(signals.events) == 2)
    found = collected(signals)  # after the end
    units = {name: unit for name, (unit, _) in found.items()}
    assert units["endwell.bytes"] == "By"
    assert units["endwell.connection_duration"] == units["endwell.stalled"] == "s"
    durations = found["endwell.connection_duration"][1]
    assert [(dict(point.attributes), point.count) for point in durations] == [
        ({"http.route": "/{name}", "endwell.cause": "peer_closed"}, 2)
    ]
    endings = {point.attributes["endwell.code"]: point.value for point in found["endwell.endings"][1]}
    assert endings == {"other": 1, "1000": 1}


async def test_a_reading_while_the_loop_is_blocked_returns(monkeypatch, caplog):
    server, signals = instrumented()
    reads, read = [], ServerMetrics._read

    def counted(self):
        reads.append("failed")
        found = read(self)
        reads[-1] = "read"
        return found

    monkeypatch.setattr("endwell.otel.metrics.ServerMetrics._read", counted)
    monkeypatch.setattr("endwell.otel.metrics.PATIENCE", 0.05)
    async with server.serving():
        reader = threading.Thread(target=collected, args=(signals,))
        reader.start()
        reader.join(BOUND)  # blocks the loop
        assert not reader.is_alive()
        # The next one has values again.
        monkeypatch.setattr("endwell.otel.metrics.PATIENCE", BOUND)
        assert "endwell.processes" in await asyncio.to_thread(collected, signals)
    assert reads == ["failed", "read"]
    assert [record.name for record in caplog.records] == ["endwell.otel"]


async def test_a_server_that_does_not_serve_has_metrics():
    _, signals = instrumented()
    found = await asyncio.to_thread(collected, signals)
    assert [point.value for point in found["endwell.handshakes"][1]] == [0]


def test_a_worker_has_its_own_counts():
    server = Server()
    file = shared_file(3)
    other, own = Table(file, 1), Table(file, 2)
    os.close(file)
    server._metering.meter.use(own)
    for table, count in ((other, 5), (own, 2)):
        table.cells[table.block(ENDING, ("/", "peer_closed", "peer", "1000", "true"), 1)] = count
    (row,) = own_samples(server._metering)["endwell_endings_total"]
    assert row["value"] == 2
    assert server.metrics["endwell_endings_total"][0]["value"] == 7


async def test_what_has_no_room_in_the_table_hides_no_other_metric(caplog):
    server, signals = instrumented()
    for number in range(1500):
        server._metering.meter.table.block(ROUTE, (f"/{'x' * 100}/{number}",), 10)
    async with server.serving():
        with pytest.raises(Exception, match="404"):
            await connect(f"ws://127.0.0.1:{server.port}/nowhere")
    found = collected(signals)
    handshakes = [(dict(point.attributes), point.value) for point in found["endwell.handshakes"][1]]
    assert ({"endwell.outcome": "other"}, 1) in handshakes
    assert "endwell.processes" in found
    assert not caplog.records


async def test_the_servers_of_a_provider_are_added_up_and_not_kept(face):
    server, signals = instrumented(face)
    second = Server()
    otel.instrument(second, **signals.providers)
    second.websocket("/{name}")(face.handler(lambda ws, name: idle(ws)))
    async with server.serving(), second.serving():
        for each in (server, second):
            async with connect(f"ws://127.0.0.1:{each.port}/a"):
                pass
        await until(lambda: len(signals.events) == 2)
        (endings,) = collected(signals)["endwell.endings"][1]
        assert endings.value == 2
    kept = weakref.ref(second)
    del second, each
    gc.collect()
    assert kept() is None


async def test_a_provider_is_kept_with_its_server():
    """Its instruments are found by its id(), which no other provider may get."""
    provider = NoOpMeterProvider()
    kept, server = weakref.ref(provider), Server()
    otel.instrument(server, meter_provider=provider)
    del provider
    gc.collect()
    assert kept() is not None
