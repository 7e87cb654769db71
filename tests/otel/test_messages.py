"""Spans of messages: only on request, in traces of their own, and bounded."""

from __future__ import annotations

import asyncio
import time

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from endwell import Server, connect, otel
from endwell.otel.messages import MAX_HANDLED
from tests.otel.signals import Signals
from tests.pair import nothing_left_behind, until, within
from tests.raw import RawPeer
from tests.wire.peer import CLOSE, TEXT


def instrumented(**how):
    signals, server = Signals(), Server()
    otel.instrument(server, **signals.providers, **how)
    return server, signals


async def talk(server, *messages, path="/"):
    async with connect(f"ws://127.0.0.1:{server.port}{path}") as ws:
        for message in messages:
            await ws.send(message)
            assert await within(ws.recv()) == message
    await until(lambda: not server.connections and not server._dispatcher.tasks)


async def by_iterating(ws, work):
    async for message in ws:
        await work(message)


async def by_reading(ws, work):
    while (message := await ws.read()) is not None:
        await work(message)


async def by_receiving(ws, work):
    while ws.is_open:
        await work(await ws.recv())


@pytest.mark.parametrize("receive", [by_iterating, by_reading, by_receiving])
async def test_a_message_is_a_trace_from_its_receipt_to_the_next_one(face, receive):
    server, signals = instrumented(messages=1.0)
    outside = []

    async def script(ws, name):
        outside.append(trace.get_current_span().get_span_context().span_id)

        async def work(message):
            with signals.tracer.start_as_current_span("work"):
                pass
            await ws.send(message)

        await receive(ws, work)
        outside.append(trace.get_current_span().get_span_context().span_id)

    server.websocket("/{name}")(face.handler(script))
    async with nothing_left_behind(), server.serving():
        await talk(server, "hello", b"\0\1", path="/a")
        await until(lambda: signals.events)
    (handshake,) = signals.named("GET /{name}")
    received, sent, work = map(signals.named, ("receive /{name}", "send /{name}", "work"))
    assert [len(received), len(sent), len(work)] == [2, 2, 2]
    for message, answer, inner in zip(received, sent, work, strict=True):
        assert message.parent is None
        assert message.kind is SpanKind.CONSUMER
        assert message.context.trace_id != handshake.context.trace_id
        assert [link.context.span_id for link in message.links] == [handshake.context.span_id]
        assert inner.parent.span_id == answer.parent.span_id == message.context.span_id
        assert answer.kind is SpanKind.PRODUCER
        assert message.start_time <= answer.start_time
        assert answer.end_time <= message.end_time
        assert message.status.status_code is StatusCode.UNSET
    told = [
        (each.attributes["endwell.message.type"], each.attributes["endwell.message.size"])
        for each in received
    ]
    assert told == [("text", 5), ("binary", 2)]
    assert received[0].end_time <= received[1].start_time
    if receive is not by_receiving:  # it ends with ConnectionClosed
        assert outside == [handshake.context.span_id] * 2


async def test_the_last_message_is_handled_when_the_handler_returns(face):
    """Not when the connection has ended, which may take the time of the closing handshake."""
    server, signals = instrumented(messages=1)

    async def script(ws):
        await ws.send(await ws.recv())

    server.websocket("/")(face.handler(script))
    async with server.serving():
        with await RawPeer.connect(server.port) as peer:
            await peer.frame(TEXT, b"hello")
            assert [(await peer.read_frame()).opcode for _ in range(2)] == [TEXT, CLOSE]
            received_close = time.time_ns()
            await peer.close()
            await peer.read_to_the_end()
            peer.fin()
        await until(lambda: signals.events)
    (message,) = signals.named("receive /")
    assert message.end_time <= received_close


async def test_a_message_that_the_handler_gets_after_the_end_is_handled_when_it_returns(face):
    server, signals = instrumented(messages=1.0)

    async def script(ws):
        await ws.wait_closed()
        assert await ws.recv() == "last"

    server.websocket("/")(face.handler(script))
    async with server.serving():
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("last")
        await until(lambda: not server.connections and not server._dispatcher.tasks)
    assert len(signals.named("receive /")) == 1


async def test_a_handler_that_raises_fails_its_message(face):
    server, signals = instrumented(messages=1)

    async def script(ws):
        await ws.recv()
        raise ValueError

    server.websocket("/")(face.handler(script))
    async with server.serving():
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("hello")
            await within(ws.closed)
        await until(lambda: signals.events and signals.named("receive /"))
    (message,) = signals.named("receive /")
    assert message.status.status_code is StatusCode.ERROR
    assert message.attributes["error.type"] == "handler_error"


async def test_by_default_no_message_has_a_span(face):
    server, signals = instrumented()

    async def script(ws):
        async for message in ws:
            await ws.send(message)

    server.websocket("/")(face.handler(script))
    async with server.serving():
        await talk(server, *"abc")
    assert [span.name for span in signals.spans] == ["GET /"]


async def test_a_function_chooses_the_messages(face):
    server, signals = instrumented(messages=lambda ws: ws.request.route == "/traced")

    async def script(ws):
        async for message in ws:
            await ws.send(message)

    for path in ("/traced", "/other"):
        server.websocket(path)(face.handler(script))
    async with server.serving():
        for path in ("/traced", "/other"):
            await talk(server, "hello", path=path)
    assert sorted(span.name for span in signals.spans) == [
        "GET /other",
        "GET /traced",
        "receive /traced",
        "send /traced",
    ]


async def test_a_function_that_raises_chooses_none(caplog):
    server, signals = instrumented(messages=lambda ws: 1 / 0)

    @server.websocket("/")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with server.serving():
        await talk(server, *"abc")
    assert [span.name for span in signals.spans] == ["GET /"]
    assert [record.name for record in caplog.records] == ["endwell.otel"]


async def test_a_share_of_the_messages_has_spans():
    server, signals = instrumented(messages=0.5)

    @server.websocket("/")
    async def count(ws):
        async for _ in ws:
            pass

    async with server.serving():
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            for _ in range(400):
                await ws.send("hello")
        await until(lambda: signals.events)
    # The probability of a fault is less than 1e-9.
    assert 130 < len(signals.named("receive /")) < 270


async def test_messages_that_other_tasks_handle_are_bounded():
    server, signals = instrumented(messages=1)
    open_spans = []

    @server.websocket("/")
    async def handler(ws):
        for _ in range(3 * MAX_HANDLED):
            await asyncio.create_task(ws.read())
        open_spans.append(len(ws.handled._messages))

    async with server.serving():
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            for _ in range(3 * MAX_HANDLED):
                await ws.send("hello")
            await within(ws.closed)
        await until(lambda: signals.events)
    assert open_spans == [MAX_HANDLED]
    assert len(signals.named("receive /")) == 3 * MAX_HANDLED


async def test_a_send_that_fails_is_told(face):
    server, signals = instrumented(messages=1)
    raised = []

    async def script(ws):
        for message in (5, "late"):
            try:
                await ws.send(message)
            except Exception as exc:
                raised.append(type(exc).__name__)
            await ws.close()

    server.websocket("/")(face.handler(script))
    async with server.serving():
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await within(ws.closed)
        await until(lambda: signals.events)
    assert raised == ["TypeError", "ConnectionClosedOK"]
    assert [span.attributes["error.type"] for span in signals.named("send /")] == raised


async def test_broadcasts_and_rooms_take_a_connection_with_spans():
    server, signals = instrumented(messages=1)

    @server.websocket("/asyncio")
    async def member(ws):
        async with server.rooms["lobby"].join(ws):
            server.broadcast([ws], "to all")
            await server.rooms["lobby"].publish("in the room")
            await ws.wait_closed()

    @server.websocket("/blocking")
    def blocking_member(ws):
        with server.rooms.blocking["hall"].join(ws):
            server.broadcast([ws], "to all")
            server.rooms.blocking["hall"].publish("in the room")
            ws.wait_closed()

    async with server.serving():
        for path in ("/asyncio", "/blocking"):
            async with connect(f"ws://127.0.0.1:{server.port}{path}") as ws:
                assert [await within(ws.recv()) for _ in range(2)] == ["to all", "in the room"]
    # Only send() of the connection itself has spans.
    assert sorted(span.name for span in signals.spans) == ["GET /asyncio", "GET /blocking"]
