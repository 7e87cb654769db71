"""What an application under uvicorn tells OpenTelemetry of its WebSockets."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI, WebSocket
from opentelemetry import trace
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

from endwell import HandshakeRejected, Server, connect, otel
from tests.asgi.serving import serving
from tests.otel.signals import Signals
from tests.pair import until, within
from tests.raw import RawPeer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


def instrumented():
    signals, app = Signals(), FastAPI()
    app.add_middleware(otel.ASGIMiddleware, **signals.of_a_client)
    app.state.waits = asyncio.Event()

    @app.websocket("/rooms/{room}")
    async def chat(ws: WebSocket, room: str):
        if room == "refused":
            await ws.close()
            return
        if room == "fails":
            raise ValueError
        if room == "waits":
            await ws.receive()
            app.state.waits.set()
            await ws.receive()  # the client leaves
            return
        await ws.accept()
        with signals.tracer.start_as_current_span("work"):
            pass
        async for message in ws.iter_text():
            if message == "fail":
                raise ValueError
            await ws.send_text(message)

    @app.get("/page")
    def page():
        return {"recording": trace.get_current_span().is_recording()}

    return app, signals


async def test_a_connection_under_uvicorn_is_told(transport):
    app, signals = instrumented()
    async with serving(app, transport=transport) as running:
        scheme = "ws" if transport.server is None else "wss"
        url = f"{scheme}://127.0.0.1:{running.port}/rooms/1?token=secret"
        headers = {"traceparent": TRACEPARENT}
        async with connect(url, ssl=transport.client, additional_headers=headers) as ws:
            await ws.send("hello")
            assert await within(ws.recv()) == "hello"
            assert [span.name for span in signals.spans] == ["GET /rooms/{room}", "work"]
        await until(lambda: signals.events)
    handshake, work = signals.spans
    assert handshake.kind is SpanKind.SERVER
    assert format_trace_id(handshake.context.trace_id) == TRACE
    assert format_span_id(handshake.parent.span_id) == SPAN
    assert work.parent.span_id == handshake.context.span_id
    told = handshake.attributes
    assert (told["http.response.status_code"], told["http.route"]) == (101, "/rooms/{room}")
    assert (told["url.path"], told["url.scheme"]) == ("/rooms/1", scheme)
    assert (told["client.address"], told["server.port"]) == ("127.0.0.1", running.port)
    (event,) = signals.events
    assert (event.event_name, event.span_id) == ("websocket.ending", handshake.context.span_id)
    assert (event.attributes["endwell.cause"], event.attributes["endwell.role"]) == ("peer_closed", "server")
    assert event.attributes["http.route"] == "/rooms/{room}"


async def test_the_telemetry_of_fastapi_can_leave_websockets_out():
    """As docs/howto/telemetry.md does. Otherwise, it has a span as long as the connection."""
    signals = Signals()
    telemetry = {"exclude": lambda scope: scope["type"] == "websocket", **signals.of_a_client}
    app = FastAPI(telemetry=telemetry)
    app.add_middleware(otel.ASGIMiddleware, **signals.of_a_client)

    @app.websocket("/rooms/{room}")
    async def chat(ws: WebSocket, room: str):
        await ws.accept()
        await ws.receive_text()  # raises WebSocketDisconnect

    async with serving(app) as running:
        async with connect(f"ws://127.0.0.1:{running.port}/rooms/1"):
            pass
        await until(lambda: signals.events)
    assert [span.name for span in signals.spans] == ["GET /rooms/{room}"]
    assert [event.event_name for event in signals.events] == ["websocket.ending"]


async def test_refusals_failures_and_clients_that_leave_are_told():
    app, signals = instrumented()
    async with serving(app) as running:
        url = f"ws://127.0.0.1:{running.port}/rooms/"
        for room in ("refused", "fails"):
            with pytest.raises(HandshakeRejected):
                await connect(url + room)
        with await RawPeer.connect_tcp(running.port) as peer:
            await peer.write(peer.request("/rooms/waits"))
            await within(app.state.waits.wait())
            peer.reset()
            await until(lambda: len(signals.spans) == 3)
        async with connect(url + "1") as ws:
            await ws.send("fail")
            assert (await within(ws.closed)).code == 1011
        await until(lambda: signals.events)
    told = [
        (span.attributes.get("http.response.status_code"), span.attributes.get("error.type"))
        for span in signals.spans
    ]
    assert told == [(403, "403"), (500, "500"), (None, "connection_reset"), (101, None), (None, None)]
    assert [event.attributes["endwell.cause"] for event in signals.events] == ["handler_error"]


BODY = "websocket.http.response.body"


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([{"type": "websocket.accept", "subprotocol": "not offered"}], 500),
        ([{"type": BODY, "body": b"no"}], 500),
        ([{"type": "websocket.http.response.start", "status": 401}], 401),
        ([{"type": "websocket.http.response.start", "status": 401}, {"type": BODY, "body": b"no"}], 401),
        (
            [
                {"type": "websocket.http.response.start", "status": 401},
                {"type": BODY, "body": b"n", "more_body": True},
            ],
            500,
        ),
    ],
    ids=range(5),
)
async def test_the_status_is_that_of_the_server_s_answer(events, status, caplog):
    async def app(scope, receive, send):
        await receive()
        for event in events:
            await send(event)

    signals = Signals()
    async with serving(otel.ASGIMiddleware(app, **signals.of_a_client)) as running:
        with pytest.raises(HandshakeRejected) as refused:
            await connect(f"ws://127.0.0.1:{running.port}/")
        assert refused.value.response.status == status
        await until(lambda: signals.spans)
    (span,) = signals.spans
    assert span.attributes["http.response.status_code"] == status
    assert not signals.events


@pytest.mark.parametrize(
    "late", [None, {"type": "websocket.accept"}, {"type": "websocket.close"}], ids=range(3)
)
async def test_a_request_that_the_server_refuses_because_it_stops_has_its_status(late):
    waits, stopped = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        waits.set()
        await stopped.wait()
        if late is not None:
            await send(late)

    signals = Signals()
    async with serving(otel.ASGIMiddleware(app, **signals.of_a_client)) as running:
        with await running.reach() as peer:
            await peer.write(peer.request())
            await within(waits.wait())
            stop = asyncio.create_task(running.shutdown())
            assert (await peer.read_head()).split()[1] == "503"
        stopped.set()
        await within(stop)
    (span,) = signals.spans
    assert span.attributes["http.response.status_code"] == 503
    assert not signals.events


async def test_http_requests_and_other_servers_pass():
    signals, seen = Signals(), []

    async def app(scope, receive, send):
        seen.append((scope["type"], trace.get_current_span().is_recording()))

    wrapped = otel.ASGIMiddleware(app, **signals.of_a_client)
    for scope in (
        {"type": "http"},
        {"type": "lifespan"},
        {"type": "websocket", "extensions": {}},
        {"type": "websocket"},
    ):
        await wrapped(scope, None, None)
    assert seen == [("http", False), ("lifespan", False), ("websocket", False), ("websocket", False)]
    assert not signals.spans


async def test_it_works_in_a_mounted_application_too():
    app, signals = instrumented()
    server = Server()
    server.mount("/", app)
    async with server.serving(), connect(f"ws://127.0.0.1:{server.port}/rooms/1") as ws:
        await ws.send("hello")
        assert await within(ws.recv()) == "hello"
    await until(lambda: signals.events)
    assert [span.name for span in signals.spans] == ["GET /rooms/{room}", "work"]


async def test_a_malformed_scope_breaks_no_connection(caplog):
    """As if the SDK failed: what it raises is logged once."""
    signals, done = Signals(), asyncio.Event()

    async def app(scope, receive, send):
        done.set()

    wrapped = otel.ASGIMiddleware(app, **signals.of_a_client)
    extension = {"ending": lambda: None, "on_close": lambda callback: None}
    await wrapped({"type": "websocket", "extensions": {"endwell": extension}}, None, None)
    assert done.is_set()
    assert [record.name for record in caplog.records] == ["endwell.otel"]
