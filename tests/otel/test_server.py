"""What a server tells OpenTelemetry of its opening handshakes and its endings."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from dataclasses import fields

import pytest
from opentelemetry import baggage, trace
from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

import endwell
from endwell import Accept, Response, Server, connect, otel
from tests.otel.signals import Signals, objects
from tests.pair import idle, nothing_left_behind, until, within
from tests.raw import BOUND, RawPeer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


def instrumented(**how):
    signals, server = Signals(), Server()
    otel.instrument(server, **signals.providers, **how)
    return server, signals


async def answer(server, path, *fields):
    """The status of the answer to a request for a WebSocket with these fields, and the end of the connection."""
    with await RawPeer.connect_tcp(server.port) as peer:
        head = peer.request(path)[:-2] + b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        await peer.write(head + b"\r\n")
        status = int((await peer.read_head()).split()[1])
        if status == 101:
            await peer.close()
            await peer.read_to_the_end()
        peer.fin()
        await until(lambda: not server.connections and not server._dispatcher.tasks)
        return status


async def test_a_handshake_is_a_short_span_with_the_trace_context_of_the_request(face, transport):
    server, signals = instrumented()
    seen = []

    async def script(ws, room):
        span = trace.get_current_span()
        seen.append((span.get_span_context(), baggage.get_baggage("user"), span.is_recording()))
        # The span has ended, although the connection is open.
        seen.append([span.name for span in signals.spans])
        with signals.tracer.start_as_current_span("work"):
            pass
        async for message in ws:
            await ws.send(message)

    server.websocket("/rooms/{room}")(face.handler(script))
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        scheme = "ws" if transport.server is None else "wss"
        url = f"{scheme}://127.0.0.1:{server.port}/rooms/1?token=secret"
        headers = {"traceparent": TRACEPARENT, "baggage": "user=ada", "User-Agent": "test"}
        async with connect(url, ssl=transport.client, additional_headers=headers) as ws:
            await ws.send("hello")
            assert await within(ws.recv()) == "hello"
        await until(lambda: signals.events)
    handshake, work = sorted(signals.spans, key=lambda span: span.name)
    assert handshake.name == "GET /rooms/{room}"
    assert handshake.kind is SpanKind.SERVER
    assert format_trace_id(handshake.context.trace_id) == TRACE
    assert format_span_id(handshake.parent.span_id) == SPAN
    assert work.parent.span_id == handshake.context.span_id
    assert work.context.trace_id == handshake.context.trace_id
    (context, user, recording), ended = seen
    assert (context.span_id, user, recording) == (handshake.context.span_id, "ada", False)
    assert ended == ["GET /rooms/{room}"]
    attributes = dict(handshake.attributes)
    assert attributes.pop("network.peer.port") == attributes.pop("client.port") > 0
    assert attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 101,
        "http.route": "/rooms/{room}",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "network.peer.address": "127.0.0.1",
        "client.address": "127.0.0.1",
        "server.address": "127.0.0.1",
        "server.port": server_port(url),
        "url.path": "/rooms/1",
        "url.scheme": scheme,
        "user_agent.original": "test",
    }
    assert handshake.status.status_code is StatusCode.UNSET
    assert signals.events[0].trace_id == handshake.context.trace_id
    assert signals.events[0].span_id == handshake.context.span_id


def server_port(url):
    return int(url.partition("127.0.0.1:")[2].partition("/")[0])


async def test_each_ending_is_one_event_with_every_field(face):
    server, signals = instrumented()
    endings = []

    async def script(ws, name):
        await ws.send("hello")
        if name == "fails":
            raise ValueError(name)
        if name == "closes":
            await ws.close(4001, "bye")
        async for _ in ws:
            pass

    server.websocket("/{name}")(face.handler(script))
    server.on_close(lambda ws, ending: endings.append(ending))
    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}/"
        # The next one begins when the one before has ended on the server, too.
        for count, name in enumerate(("fails", "closes"), 1):
            async with connect(url + name) as ws:
                assert [message async for message in ws] == ["hello"]
            await until(lambda count=count: len(signals.events) == len(endings) == count)
        async with connect(url + "waits") as ws:
            await within(ws.recv())
        await until(lambda: len(signals.events) == len(endings) == 3)
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request("/drops"))
            await peer.read_head()
            await peer.read_frame()
            peer.reset()
            await until(lambda: len(signals.events) == len(endings) == 4)
    for event, ending in zip(signals.events, endings, strict=True):
        assert event.event_name == "websocket.ending"
        assert event.body == str(ending)
        told = event.attributes
        assert (told["http.route"], told["endwell.role"]) == ("/{name}", "server")
        assert told["network.peer.address"] == "127.0.0.1"
        assert told["server.port"] == server_port(url)
        for field in fields(ending):
            value = getattr(ending, field.name)
            if value is None:
                assert not any(name.startswith(f"endwell.{field.name}") for name in told)
            elif isinstance(value, endwell.Close):
                assert told.get(f"endwell.{field.name}.code") == value.code
                assert told[f"endwell.{field.name}.reason"] == value.reason
            elif isinstance(value, BaseException):
                assert told["exception.type"] == type(value).__name__
            else:
                assert told[f"endwell.{field.name}"] == getattr(value, "value", value)
    levels = [(event.attributes["endwell.cause"], event.severity_text) for event in signals.events]
    assert levels == [
        ("handler_error", "ERROR"),
        ("app_closed", "WARN"),  # 4001 is not an ordinary code
        ("peer_closed", "INFO"),
        ("connection_reset", "WARN"),
    ]
    errors = [event.attributes.get("error.type") for event in signals.events]
    assert errors == ["handler_error", "app_closed", None, "connection_reset"]
    assert Counter(span.name for span in signals.spans) == {"GET /{name}": 4}


async def test_a_refused_handshake_has_its_status_and_its_reason():
    server, signals = instrumented()
    hooks = []

    @server.process_request
    async def hook(request):
        return hooks.pop()(request) if hooks else None

    async def decide(request):
        await asyncio.sleep(0)
        return {"full": Response(503), "ok": Accept(), "fails": None}[request.params["name"]] or 1 / 0

    async def handler(ws, name):
        await ws.wait_closed()

    server.websocket("/{name}", accept=decide)(handler)
    server.websocket("/plain/")(idle)
    async with nothing_left_behind(), server.serving():
        assert await answer(server, "/nowhere/at/all") == 404
        assert await answer(server, "/plain/", (b"Origin", b"http://evil.example")) == 403
        assert await answer(server, "/full") == 503
        assert await answer(server, "/fails") == 500
        hooks.append(lambda request: Response.redirect("/elsewhere"))
        assert await answer(server, "/ok") == 302
        assert await answer(server, "/ok") == 101
    told = [
        (
            span.name,
            span.attributes["http.response.status_code"],
            span.attributes.get("error.type"),
            span.status.status_code.name,
        )
        for span in signals.spans
    ]
    assert told == [
        ("GET", 404, "404", "UNSET"),
        ("GET /plain/", 403, "403", "UNSET"),
        ("GET /{name}", 503, "503", "ERROR"),
        ("GET /{name}", 500, "500", "ERROR"),
        ("GET", 302, None, "UNSET"),
        ("GET /{name}", 101, None, "UNSET"),
    ]
    reasons = [span.attributes.get("endwell.refusal") for span in signals.spans]
    assert reasons[0]
    assert reasons[1]
    assert "accept function" in reasons[2]
    assert reasons[3] == "internal error"
    assert reasons[4:] == [None, None]
    assert len(signals.events) == 1


async def test_the_code_before_the_answer_runs_in_the_span(face):
    server, signals = instrumented()

    async def decide():
        trace.get_current_span().set_attribute("enduser.id", "ada")
        with signals.tracer.start_as_current_span("authenticate"):
            pass

    function = face.function(decide)
    server.process_request(lambda request: function())
    server.websocket("/", accept=lambda request: function())(face.handler(idle))
    async with server.serving():
        await answer(server, "/")
    first, second, handshake = signals.spans
    assert first.name == second.name == "authenticate"
    assert first.parent.span_id == second.parent.span_id == handshake.context.span_id
    assert handshake.attributes["enduser.id"] == "ada"


async def test_a_client_that_leaves_before_the_answer_ends_the_span():
    server, signals = instrumented()
    asked = asyncio.Event()

    async def application(scope, receive, send):
        await receive()
        asked.set()
        assert (await receive())["type"] == "websocket.disconnect"

    server.mount("/", application, lifespan="off")
    async with nothing_left_behind(), server.serving():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request("/"))
            await within(asked.wait())
            peer.reset()
            await until(lambda: signals.spans)
    assert server._dispatcher.tracing._open == {}
    (handshake,) = signals.spans
    assert handshake.attributes["error.type"] == "connection_reset"
    assert "http.response.status_code" not in handshake.attributes
    assert not signals.events


@pytest.mark.virtual_clock
async def test_a_stop_during_the_handshake_ends_the_span():
    server, signals = instrumented()
    asked = asyncio.Event()

    async def decide(request):
        asked.set()
        await asyncio.Event().wait()

    server.websocket("/", accept=decide)(idle)
    async with nothing_left_behind():
        async with server.serving():
            peer = await RawPeer.connect_tcp(server.port)
            await peer.write(peer.request("/"))
            await within(asked.wait())
            await server.drain(deadline=0.5)
        peer.drop()
    (handshake,) = signals.spans
    assert handshake.attributes["http.response.status_code"] == 503
    assert handshake.attributes["endwell.refusal"]


async def test_a_drain_is_told():
    server, signals = instrumented()
    server.websocket("/")(idle)
    async with server.serving(grace=5):
        clients = [await connect(f"ws://127.0.0.1:{server.port}/") for _ in range(3)]
        draining = asyncio.create_task(server.drain(deadline=5, window=0))
        for client in clients:
            await within(client.closed)
        await draining
    assert [event.attributes["endwell.cause"] for event in signals.events] == ["server_drained"] * 3


@pytest.mark.parametrize(
    "traceparent",
    [
        b"",
        b"00",
        b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
        b"ff-" + TRACE.encode() + b"-" + SPAN.encode() + b"-01",
        TRACEPARENT.encode().upper().replace(b"00-4", b"zz-4"),
        TRACEPARENT.encode() + b"-" + b"x" * 4000,
        b"00-" + b"\xe4" * 32 + b"-" + SPAN.encode() + b"-01",
        b"-" * 4000,
    ],
    ids=range(8),
)
async def test_a_malformed_trace_context_begins_a_new_trace(traceparent, caplog):
    server, signals = instrumented()
    server.websocket("/")(idle)
    async with server.serving():
        fields = (b"traceparent", traceparent), (b"tracestate", b"=,=,\xff" * 100)
        assert await answer(server, "/", *fields) == 101
    (handshake,) = signals.spans
    assert handshake.parent is None
    assert handshake.context.is_valid
    assert len(signals.events) == 1
    # The propagator has a line for a field that is too long.
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 1


@pytest.mark.parametrize(
    "entries",
    [
        [b"k%d=v" % n for n in range(700)],
        [b"k=" + b"v" * 7000],
        [b"\xe4=1"] * 700,
        [b"k"] * 170,
        [b"k k=v"] * 170,
        [b"k=v v"] * 170,
        [b"=v"] * 170,
        [b"k=v;=p"] * 170,
    ],
    ids=range(8),
)
async def test_baggage_is_bounded_and_floods_no_log(entries, caplog):
    server, _signals = instrumented()
    kept = []

    @server.websocket("/")
    async def handler(ws):
        kept.append(baggage.get_all())
        await ws.wait_closed()

    async with server.serving():
        assert await answer(server, "/", (b"baggage", b",".join(entries))) == 101
    assert len(kept) == 1
    assert len(kept[0]) <= 180
    assert sum(map(len, map(str, kept[0].values()))) <= 8192
    assert len(caplog.records) <= 2


async def test_the_members_of_baggage_that_are_valid_are_kept():
    server, _signals = instrumented()
    kept = []

    @server.websocket("/")
    async def handler(ws):
        kept.append(dict(baggage.get_all()))
        await ws.wait_closed()

    async with server.serving():
        assert await answer(server, "/", (b"baggage", b"a=1, b b=2,c = x%20y ;p;q=1,,d,e=~!#+-:<=[]")) == 101
    (entries,) = kept
    assert list(entries) == ["a", "c", "e"]
    assert entries["a"] == "1"
    assert entries["c"].startswith("x y")


async def test_no_span_of_the_program_is_the_parent_of_a_request():
    server, signals = instrumented()
    server.websocket("/")(idle)
    with signals.tracer.start_as_current_span("main"):
        async with server.serving():
            await answer(server, "/")
    handshake, _ = signals.spans
    assert handshake.parent is None


async def test_a_mounted_application_runs_in_the_context(transport):
    server, signals = instrumented()
    seen = []

    async def application(scope, receive, send):
        await receive()
        seen.append(trace.get_current_span().is_recording())
        if scope["path"] == "/app/refuses":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        # The span has ended, and what follows is still in its trace.
        seen.append(trace.get_current_span().is_recording())
        with signals.tracer.start_as_current_span("work"):
            pass
        while (await receive())["type"] != "websocket.disconnect":
            pass

    server.mount("/app", application, lifespan="off")
    async with nothing_left_behind(), server.serving():
        assert await answer(server, "/app/a") == 101
        assert await answer(server, "/app/refuses") == 403
    assert seen == [True, False, True]
    handshake, work, refused = signals.spans
    assert handshake.name == refused.name == "GET /app/{path:path}"
    assert work.parent.span_id == handshake.context.span_id
    assert refused.attributes["error.type"] == "403"
    assert [event.span_id for event in signals.events] == [handshake.context.span_id]


# uvloop 0.23 gives `eager_start` to the factory of Python 3.13.0, which does not know it.
@pytest.mark.loop(factory=asyncio.SelectorEventLoop)
async def test_a_handler_of_an_eager_task_runs_in_the_context():
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("Python 3.12")
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    server, signals = instrumented()
    seen = []

    @server.websocket("/", accept=lambda request: None)
    async def handler(ws):
        seen.append(trace.get_current_span().get_span_context().span_id)

    async with server.serving():
        await answer(server, "/")
    assert seen == [signals.spans[0].context.span_id]


class Broken(SpanProcessor, LogRecordProcessor):
    """A processor that raises at each call."""

    def on_start(self, span, parent_context=None):
        raise ValueError("on_start")

    def on_end(self, span):
        raise ValueError("on_end")

    def on_emit(self, log_record):
        raise ValueError("on_emit")

    def shutdown(self):
        pass

    def force_flush(self, timeout_millis=0):
        return True


async def test_strangers_decide_nothing_about_a_public_server():
    server, signals = instrumented(public=True)
    seen = []

    @server.websocket("/")
    async def handler(ws):
        seen.append(baggage.get_all())
        await ws.wait_closed()

    async with server.serving():
        assert (
            await answer(server, "/", (b"traceparent", TRACEPARENT.encode()), (b"baggage", b"user=eve"))
            == 101
        )
        assert await answer(server, "/", (b"traceparent", b"nonsense")) == 101
    first, second = signals.spans
    assert first.parent is None
    assert format_trace_id(first.context.trace_id) != TRACE
    assert [format_trace_id(link.context.trace_id) for link in first.links] == [TRACE]
    assert not second.links
    assert seen == [{}, {}]


async def test_a_processor_that_raises_ends_no_connection_and_is_logged_once(face, caplog):
    server, signals = instrumented(messages=1)
    signals.tracer_provider.add_span_processor(Broken())
    signals.logger_provider.add_log_record_processor(Broken())
    endings = []

    async def script(ws):
        async for message in ws:
            await ws.send(message)

    server.websocket("/", accept=lambda request: None)(face.handler(script))
    server.on_close(lambda ws, ending: endings.append(ending))
    async with nothing_left_behind(), server.serving():
        for _ in range(3):
            async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                for message in ("one", "two"):
                    await ws.send(message)
                    assert await within(ws.recv()) == message
        await until(lambda: len(endings) == 3)
    assert {ending.cause for ending in endings} == {endwell.Cause.PEER_CLOSED}
    assert [record.getMessage() for record in caplog.records if record.name == "endwell.otel"] == [
        "telemetry failed (further failures are not logged)"
    ]


async def test_an_exporter_that_blocks_delays_no_connection_with_batch_processors():
    server, signals = instrumented()
    blocked, release = threading.Event(), threading.Event()

    class Blocking(SpanExporter, LogRecordExporter):
        def export(self, batch):
            blocked.set()
            release.wait(BOUND)
            return SpanExportResult.SUCCESS

        def shutdown(self):
            pass

    spans = BatchSpanProcessor(Blocking(), max_export_batch_size=1, max_queue_size=4)
    logs = BatchLogRecordProcessor(Blocking(), max_export_batch_size=1, max_queue_size=4)
    signals.tracer_provider.add_span_processor(spans)
    signals.logger_provider.add_log_record_processor(logs)
    server.websocket("/")(idle)
    try:
        async with server.serving():
            await answer(server, "/")
            await asyncio.to_thread(blocked.wait, BOUND)
            # More than the queues hold. The loop of this test is that of the server.
            for _ in range(20):
                assert await answer(server, "/") == 101
            assert not release.is_set()
            await until(lambda: len(signals.events) == 21)
    finally:
        release.set()
        await asyncio.to_thread(spans.shutdown)
        await asyncio.to_thread(logs.shutdown)


async def test_a_propagator_that_raises_refuses_no_connection(monkeypatch):
    server, signals = instrumented()
    server.websocket("/")(idle)

    def fail(*_):
        raise ValueError

    monkeypatch.setattr("endwell.otel.telemetry.extract", fail)
    async with server.serving():
        assert await answer(server, "/", (b"traceparent", TRACEPARENT.encode())) == 101
    assert signals.spans[0].parent is None


@pytest.mark.parametrize("many", [150, pytest.param(1000, marks=pytest.mark.exhaustive)])
async def test_nothing_of_a_connection_remains(face, many):
    """Neither in the instrumentation nor elsewhere: the number of objects is the same after many connections."""
    server, signals = instrumented(messages=0.5)

    async def script(ws):
        async for message in ws:
            await ws.send(message)

    server.websocket("/")(face.handler(script))

    async def rounds(count):
        for number in range(count):
            if number % 10 == 0:
                assert await answer(server, "/nowhere") == 404
            async with connect(f"ws://127.0.0.1:{server.port}/", compression=None) as ws:
                await ws.send("hello")
                assert await within(ws.recv()) == "hello"
        await until(lambda: not server.connections and not server._dispatcher.tasks)
        await until(lambda: len(signals.events) == count)
        signals.clear()
        return objects()

    async with server.serving():
        await rounds(30)
        before = await rounds(30)
        after = await rounds(many)
        assert server._dispatcher.tracing._open == {}
    grown = {name: count - before[name] for name, count in after.items() if count - before[name] >= many // 3}
    assert grown == {}


def test_wrong_arguments_are_named():
    server = Server()
    with pytest.raises(TypeError, match="server must be"):
        otel.instrument(object())
    for value, error in ((1.5, ValueError), (-1, ValueError), ("0.1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="messages must be"):
            otel.instrument(server, messages=value)
    otel.instrument(server)
    with pytest.raises(RuntimeError, match="instrumented already"):
        otel.instrument(server)


async def test_a_server_that_serves_cannot_be_instrumented():
    async with Server().serving() as server:
        with pytest.raises(RuntimeError, match="or serves"):
            otel.instrument(server)


async def test_without_an_sdk_nothing_is_recorded_and_everything_works():
    server = Server()
    otel.instrument(server, messages=1)

    @server.websocket("/")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with server.serving(), connect(f"ws://127.0.0.1:{server.port}/") as ws:
        await ws.send("hello")
        assert await within(ws.recv()) == "hello"
