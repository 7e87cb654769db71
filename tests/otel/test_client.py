"""What the clients of a process tell OpenTelemetry."""

from __future__ import annotations

import asyncio
import socket
from contextvars import copy_context

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id

import endwell
from endwell import HandshakeRejected, Response, Server, connect, otel
from tests.face import ASYNCIO, _AwaitedWebSocket
from tests.otel.signals import Signals, objects
from tests.pair import idle, nothing_left_behind, until, within
from tests.ports import free_port
from tests.raw import BOUND


@pytest.fixture
def signals():
    signals = Signals()
    otel.instrument_client(**signals.of_a_client)
    yield signals
    otel.uninstrument_client()


def echoing(face):
    server, requests = Server(), []

    async def script(ws):
        requests.append(ws.request)
        async for message in ws:
            await ws.send(message)

    server.websocket("/")(face.handler(script))
    return server, requests


async def connected(face, url, **how):
    """A client that is connected in the context of the caller, also if that is another thread."""
    if face is ASYNCIO:
        return await face.connect(url, **how)
    made = []
    await asyncio.to_thread(lambda: made.append(endwell.sync.connect(url, **how)))
    return face.for_test(_AwaitedWebSocket(made[0], None))


async def test_an_attempt_is_a_span_whose_context_goes_to_the_server(face, transport, signals):
    server, requests = echoing(face)
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        scheme = "ws" if transport.server is None else "wss"
        port = server.port
        url = f"{scheme}://127.0.0.1:{port}/"
        with signals.tracer.start_as_current_span("work") as work:
            token = context.attach(baggage.set_baggage("user", "ada"))
            ws = await connected(face, f"{url}?token=secret", ssl=transport.client)
            # The code that follows is not inside of the handshake.
            assert trace.get_current_span() is work
            context.detach(token)
        await ws.send("hello")
        assert await face.recv(ws, 30) == "hello"
        await ws.close()
        await until(lambda: signals.events)
    span = signals.named("GET")[0]
    assert span.kind is SpanKind.CLIENT
    assert span.parent.span_id == work.get_span_context().span_id
    assert requests[0].headers["traceparent"].split("-")[1] == format_trace_id(span.context.trace_id)
    assert requests[0].headers["baggage"] == "user=ada"
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 101,
        "network.peer.address": "127.0.0.1",
        "network.peer.port": port,
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": f"{url}?...",
        "url.scheme": scheme,
    }
    (event,) = signals.events
    assert (event.event_name, event.span_id) == ("websocket.ending", span.context.span_id)
    told = event.attributes
    assert (told["endwell.cause"], told["endwell.role"], told["endwell.messages_in"]) == (
        "app_closed",
        "client",
        1,
    )
    assert told["url.full"] == f"{url}?..."


async def test_a_failed_attempt_is_told(face, signals):
    server = Server()
    server.get("/page")(lambda request: Response.text("no", 418))
    async with server.serving():
        for path in ("/nowhere", "/page"):
            with pytest.raises(endwell.HandshakeRejected):
                await face.connect(f"ws://127.0.0.1:{server.port}{path}")
    with pytest.raises(endwell.HandshakeError):
        await face.connect(f"ws://127.0.0.1:{free_port()}/")
    told = [
        (
            span.attributes.get("http.response.status_code"),
            span.attributes["error.type"],
            span.attributes["endwell.phase"],
            span.status.status_code,
        )
        for span in signals.spans
    ]
    error = StatusCode.ERROR
    assert told == [
        (404, "404", "http", error),
        (404, "404", "http", error),
        (None, "network_error", "connect", error),
    ]
    causes = [event.attributes["endwell.cause"] for event in signals.events]
    assert causes == ["handshake_rejected", "handshake_rejected", "network_error"]


async def test_an_attempt_that_is_cancelled_ends_the_span(signals):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        before = trace.get_current_span()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connect(f"ws://127.0.0.1:{port}/")
        assert trace.get_current_span() is before
    (span,) = signals.spans
    assert span.attributes["error.type"] == "CancelledError"
    assert not signals.events


async def test_redirects_belong_to_the_attempt_and_own_fields_are_kept(signals, face):
    server, requests = echoing(face)
    server.process_request(lambda request: Response.redirect("/") if request.path == "/old" else None)
    own = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with server.serving():
        for headers in ({}, {"Traceparent": own}):
            async with connect(f"ws://127.0.0.1:{server.port}/old", additional_headers=headers):
                pass
    first, _second = signals.spans
    assert requests[0].headers["traceparent"].split("-")[1] == format_trace_id(first.context.trace_id)
    assert requests[1].headers.get_all("traceparent") == [own]


async def test_what_asks_for_a_token_is_inside_of_the_attempt(signals):
    server, _ = echoing_asyncio()

    async def ask():
        with signals.tracer.start_as_current_span("ask"):
            return "secret"

    async with server.serving():
        ws = await connect(f"ws://127.0.0.1:{server.port}/", token=ask)
        await ws.close()
    asked, attempt = signals.spans
    assert asked.parent.span_id == attempt.context.span_id
    assert "secret" not in str(attempt.to_json())


async def test_each_attempt_of_a_client_that_reconnects_is_a_span(signals, face):
    server = Server()

    async def script(ws):
        await ws.close(1012)

    server.websocket("/")(face.handler(script))
    async with nothing_left_behind(), server.serving():
        client = face.reconnecting(
            f"ws://127.0.0.1:{server.port}/", policy=endwell.RetryPolicy(base=0.001, max_delay=0.002)
        )
        count = 0
        async for ws in client:
            await within(ws.wait_closed())
            if (count := count + 1) == 3:
                break
        await client.aclose()
        await until(lambda: len(signals.events) >= 3)
    assert [span.kind for span in signals.spans] == [SpanKind.CLIENT] * len(signals.spans)
    assert len(signals.spans) >= 3


async def test_nothing_of_a_connection_remains(signals, face):
    server, requests = echoing(face)

    async def rounds(count):
        for _ in range(count):
            ws = await face.connect(f"ws://127.0.0.1:{server.port}/", compression=None)
            await ws.close()
        await until(lambda: not server._dispatcher.tasks and len(signals.events) == count)
        signals.clear()
        requests.clear()
        del ws
        return objects()

    async with server.serving():
        await rounds(30)
        before = await rounds(30)
        after = await rounds(100)
    assert {name: count - before[name] for name, count in after.items() if count - before[name] >= 35} == {}


async def test_a_client_that_is_dropped_is_closed_and_told(signals):
    server, _ = echoing_asyncio()
    async with nothing_left_behind(), server.serving():
        ws = await connect(f"ws://127.0.0.1:{server.port}/")
        assert ws.is_open
        del ws
        await until(lambda: signals.events)
    assert signals.events[0].attributes["endwell.cause"] == "app_closed"


def echoing_asyncio():
    server = Server()
    server.websocket("/")(idle)
    return server, None


async def test_after_uninstrumenting_nothing_is_told(signals):
    otel.uninstrument_client()
    server, _ = echoing_asyncio()
    async with server.serving(), connect(f"ws://127.0.0.1:{server.port}/") as ws:
        assert "traceparent" not in ws.request.headers
    assert not signals.spans
    assert not signals.events


class Broken(LogRecordProcessor):
    """Raises an exception."""

    def on_emit(self, log_record):
        raise OSError("the collector is away")

    def shutdown(self):
        pass

    def force_flush(self, timeout_millis=0):
        return True


async def test_a_failure_of_the_telemetry_leaves_no_span_open(signals):
    signals.logger_provider.add_log_record_processor(Broken())
    server = Server()
    async with server.serving():
        with pytest.raises(HandshakeRejected):
            await connect(f"ws://127.0.0.1:{server.port}/nothing")
    assert [span.attributes["error.type"] for span in signals.spans] == ["404"]


async def test_an_attempt_that_is_closed_from_outside_changes_no_other_context(signals):
    """As an attempt whose task is garbage-collected."""
    with signals.tracer.start_as_current_span("caller"):
        context = copy_context()
    attempt = connect("ws://127.0.0.1:1/", token=lambda: asyncio.sleep(BOUND)).__await__()
    context.run(attempt.send, None)
    attempt.close()
    assert not trace.get_current_span().get_span_context().is_valid
    assert [span.attributes["error.type"] for span in signals.named("GET")] == ["GeneratorExit"]
