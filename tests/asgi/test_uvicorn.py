"""uvicorn's WebSocket class: its options, its log, and what uvicorn asks of such a class."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import socket

import pytest
import uvicorn

import endwell.uvicorn
from endwell import Deflate, Drain, Limit
from endwell.uvicorn import DEFAULTS, Protocol
from tests.contract.endings.witness import sockets
from tests.hostile.test_logs import ENCODED, FORGED
from tests.pair import loop_turns, until, within
from tests.raw import RawPeer, wss
from tests.wire.peer import BINARY, TEXT

from .serving import mounted, protocol, serving


async def accepting(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def options_of(cls=Protocol, **settings):
    config = uvicorn.Config(accepting, log_config=None, **settings)
    return endwell.uvicorn._options(cls, config)


def drain_of(cls=Protocol, **settings):
    return endwell.uvicorn._drain(cls, uvicorn.Config(accepting, log_config=None, **settings))


def test_the_default_options_are_uvicorns():
    config = uvicorn.Config(accepting, log_config=None)
    options = options_of()
    assert options == DEFAULTS
    assert {name: getattr(config, name) for name in endwell.uvicorn._UVICORN} == endwell.uvicorn._UVICORN
    assert options.max_size == config.ws_max_size
    assert options.max_queue == config.ws_max_queue
    assert (options.ping_interval, options.ping_timeout) == (config.ws_ping_interval, config.ws_ping_timeout)
    assert options.compression == Deflate()


def test_a_setting_of_uvicorn_replaces_the_option_and_0_means_none():
    options = options_of(
        protocol(max_size=1, idle_timeout=9),
        ws_max_size=5,
        ws_max_queue=6,
        ws_ping_interval=0.0,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
    )
    assert (options.max_size, options.max_queue, options.idle_timeout) == (5, 6, 9)
    assert (options.ping_interval, options.ping_timeout, options.compression) == (None, None, None)


def test_a_subclass_has_options_of_its_own():
    assert options_of(protocol(max_size=1)).max_size == 1
    assert drain_of(protocol(Drain(deadline=3, code=1012))).code == 1012


def test_the_environment_replaces_the_options_of_the_class(monkeypatch):
    values = endwell.uvicorn._read(
        "X",
        DEFAULTS,
        {"X": '{"idle_timeout": 60, "origins": ["https://example.com"], "compression": {"level": 3}}'},
    )
    monkeypatch.setattr(endwell.uvicorn, "_ENVIRONMENT_OPTIONS", values)
    options = options_of(protocol(idle_timeout=1))
    assert (options.idle_timeout, options.compression) == (60, Deflate(level=3))
    assert endwell.uvicorn._read("X", DEFAULTS, {}) == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1]", "X must be a JSON object"),
        ("{", "X must be a JSON object"),
        ("5", "X must be a JSON object"),
        ('{"idle_tiemout": 5}', "X: .* did you mean 'idle_timeout'"),
        ('{"idle_timeout": "5"}', "X: idle_timeout must be a number"),
        ('{"idle_timeout": -5}', "X: idle_timeout must be positive"),
        ('{"compression": {"levl": 3}}', "X: .*levl"),
    ],
)
def test_a_mistake_in_a_variable_is_reported_with_its_name(text, problem):
    with pytest.raises(ValueError, match=f"^{problem}"):
        endwell.uvicorn._read("X", DEFAULTS, {"X": text})


@pytest.mark.parametrize(
    ("attribute", "value", "problem"),
    [
        ("options", {"idle_timeout": 60}, "Wrong.options must be Options, not dict"),
        ("drain", 10, "Wrong.drain must be Drain, not int"),
    ],
)
def test_a_subclass_with_something_else_than_options_is_an_error_at_once(attribute, value, problem):
    with pytest.raises(TypeError, match=problem):
        type("Wrong", (Protocol,), {attribute: value})


async def test_a_wrong_setting_of_uvicorn_ends_each_websocket_and_not_the_stop():
    async with serving(accepting, ws_ping_interval=-1.0) as served:
        failures = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
        with await served.reach() as peer:
            await peer.write(peer.request())
            while await peer.more():
                pass
        await until(lambda: failures)
        assert "ping_interval" in str(failures[0]["exception"])
        assert not served.connections


@pytest.mark.parametrize(("limit", "deadline"), [(None, 20), (30, 20), (10, 10), (0, 0)])
def test_the_drain_ends_before_uvicorns_own_limit(limit, deadline):
    drain = drain_of(protocol(Drain(deadline=20)), timeout_graceful_shutdown=limit)
    assert drain.deadline == deadline
    assert not drain.listen


async def test_a_stop_answers_a_request_that_the_application_has_not_answered_with_503():
    told = []

    async def app(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        told.append(await receive())
        await send({"type": "websocket.accept"})  # too late, and no error

    async with serving(app) as served:
        with await served.reach() as peer:
            await peer.write(peer.request())
            await until(lambda: served.connections and served.server.server_state.tasks)
            stop = asyncio.create_task(served.server.shutdown())
            head = await peer.read_head()
            peer.sock.close()
            await within(stop)
    assert head.startswith("HTTP/1.1 503 ")
    assert "\r\nRetry-After: " in head
    assert told == [{"type": "websocket.disconnect", "code": 1006}]


async def test_uvicorns_own_limit_cancels_the_applications_and_ends_the_drain():
    raised = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as exc:
            raised.append(exc)
            raise

    cls = protocol(Drain(deadline=100))
    async with serving(app, cls) as served:
        served.server.config.timeout_graceful_shutdown = 1  # the drain does not know of it
        with await served.connect() as peer:
            await within(served.server.shutdown())
            seen = await peer.read_to_the_end()
            await until(lambda: raised)
        await until(lambda: not served.server.server_state.tasks)
    assert seen.close is not None


async def test_without_a_file_descriptor_the_connection_ends_and_uvicorn_does_not_wait_for_it(monkeypatch):
    def dup(fd):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with serving(accepting) as served:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        monkeypatch.setattr("endwell.aio.handover._socket.dup", dup)
        with await served.reach() as peer:
            await peer.write(peer.request())
            while await peer.more():
                pass
        assert not served.connections
        monkeypatch.undo()
        with await served.connect() as peer:
            await peer.close()
            await peer.read_to_the_end()


async def test_the_handover_shows_the_peer_neither_fin_nor_rst_and_leaves_no_second_descriptor():
    async with serving(accepting) as served:
        before = sockets()
        with await served.connect() as peer:
            (connection,) = served.connections
            fd = connection._connection._call.ws._stream.sock.fileno()
            await until(lambda: _sockets_to(peer) == [fd])
            await peer.close()
            assert (await peer.read_to_the_end()).close.code == 1000
        await until(lambda: not served.connections)
        await until(lambda: sockets() == before)


def _sockets_to(peer):
    """The descriptors of this process whose other end is ``peer``."""
    found = []
    for name in os.listdir("/dev/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with sock:
            try:
                if sock.getpeername() == peer.sock.getsockname():
                    found.append(int(name))
            except OSError:
                pass
    return found


async def test_an_ending_is_logged_once_with_its_fields_or_in_uvicorns_log(caplog):
    for logger in ("uvicorn", "endwell.endings"):
        caplog.set_level(logging.INFO, logger)
        caplog.clear()
        async with serving(accepting) as served:
            with await served.connect() as peer:
                await peer.close(1000, "bye")
                await peer.read_to_the_end()
            await until(lambda: not served.connections)
        (record,) = (each for each in caplog.records if "peer closed with 1000" in each.getMessage())
        assert record.name == ("uvicorn.error" if logger == "uvicorn" else logger)
    assert (record.role, record.path, record.ending["reason"]) == ("server", "/", "bye")


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
async def test_an_ending_that_has_no_record_is_in_uvicorns_log(level, caplog):
    caplog.set_level(level, "endwell.endings")
    caplog.set_level(logging.INFO, "uvicorn")
    async with serving(accepting) as served:
        with await served.connect() as peer:
            await peer.close(1000, "bye")
            await peer.read_to_the_end()
        await until(lambda: not served.connections)
    (record,) = (each for each in caplog.records if "peer closed with 1000" in each.getMessage())
    assert record.name == "uvicorn.error"


async def test_a_level_that_changes_while_a_connection_is_open_decides_at_its_end(caplog):
    logger = logging.getLogger("endwell.endings")
    caplog.set_level(logger.level, logger.name)  # restored at the end of the test
    caplog.set_level(logging.INFO, "uvicorn")
    for before, after in ((logging.INFO, logging.ERROR), (logging.ERROR, logging.INFO)):
        logger.setLevel(before)
        caplog.clear()
        async with serving(accepting) as served:
            with await served.connect() as peer:
                logger.setLevel(after)
                await peer.close(1000, "bye")
                await peer.read_to_the_end()
            await until(lambda: not served.connections)
        (record,) = (each for each in caplog.records if "peer closed with 1000" in each.getMessage())
        assert record.name == (logger.name if after == logging.INFO else "uvicorn.error")


async def test_no_text_of_a_peer_reaches_uvicorns_log_alive(caplog):
    caplog.set_level(logging.INFO, "uvicorn")

    async def app(scope, receive, send):
        await accepting(scope, receive, send)
        return scope["path"]

    async with serving(app) as served:
        with await served.reach() as peer:
            await peer.write(peer.request(f"/{ENCODED}?{ENCODED}"))
            await peer.read_head()
            await peer.close(1011, FORGED)
            await peer.read_to_the_end()
        with await served.reach() as peer:
            await peer.write(peer.request().replace(b"Sec-WebSocket-Key", f"X-{ENCODED}".encode()))
            while await peer.more():
                pass
        await until(lambda: not served.connections)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")]
    assert any("[accepted]" in line for line in lines)
    assert any("peer closed with 1011" in line for line in lines)
    assert any("returned" in line for line in lines)
    assert any("Invalid WebSocket request" in line for line in lines)
    for line in lines:
        assert line.isprintable(), line


async def test_a_websocket_of_another_origin_is_the_applications_to_judge():
    async with serving(accepting) as served:
        with await served.reach() as peer:
            await peer.write(
                peer.request().replace(b"\r\n\r\n", b"\r\nOrigin: https://elsewhere.example\r\n\r\n")
            )
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
            await peer.close()
            await peer.read_to_the_end()


async def test_over_tls_an_application_receives_all_messages_before_a_close_and_a_fin():
    received, go_on = [], asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        while (event := await receive())["type"] == "websocket.receive":
            received.append(event["bytes"])
            await loop_turns()
        received.append((event["code"], event["reason"]))

    async with serving(app, protocol(max_queue=1), wss()) as served:
        with await served.connect() as peer:
            messages = [bytes([number]) for number in range(9)]
            for message in messages:
                await peer.frame(BINARY, message)
                await loop_turns()
            await peer.close(4001, "bye")
            peer.fin()
            await loop_turns(20)
            go_on.set()
            await until(lambda: not served.connections)
    assert received == [*messages, (4001, "bye")]


async def test_over_tls_data_that_comes_before_the_transport_has_its_new_protocol_is_passed_on():
    received = []

    async def app(scope, receive, send):
        assert scope["scheme"] == "wss"
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            received.append(event["bytes"])

    seen = []

    class Eager(protocol()):
        __slots__ = ()

        def data_received(self, data):
            super().data_received(data)
            if not seen:
                # As uvloop does, which reads again in the same turn of the loop.
                seen.append(data)
                super().data_received(b"\x82\x81\0\0\0\0x")

    async with serving(app, Eager, wss()) as served:
        with await served.connect() as peer:
            await until(lambda: received)
            await peer.close()
            await peer.read_to_the_end()
        await until(lambda: not served.connections)
    assert received == [b"x"]


async def counting(scope, receive, send):
    """Echoes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


@pytest.mark.parametrize("excess", ["wait", "drop", "close"])
@pytest.mark.parametrize("over", ["uvicorn", "mount"])
async def test_limits_hold_for_an_asgi_application(over, excess, caplog):
    caplog.set_level(logging.INFO, "endwell.server")
    limits = Limit(messages=1, per=3600, burst=3, excess=excess)
    how = (
        serving(counting, protocol(limits=limits)) if over == "uvicorn" else mounted(counting, limits=limits)
    )
    async with how as served:
        with await served.connect() as peer:
            for number in range(9):
                await peer.frame(TEXT, b"%d" % number)
            assert [(await peer.read_frame()).payload for _ in range(3)] == [b"0", b"1", b"2"]
            if excess == "close":
                close = await peer.read_close()
                assert (close.code, close.reason[:34]) == (1008, "messages came faster than allowed;")
                peer.fin()
                return
            (ws,) = served.websockets
            if excess == "wait":
                assert ws.dropped_messages == 0
                ws.abort()  # otherwise its end would be noticed in an hour, or with a ping
                return
            await until(lambda: ws.dropped_messages == 6)
            assert "dropping messages of " in caplog.text
            await peer.close()
            assert (await peer.read_to_the_end()).close.code == 1000


async def test_a_limit_by_a_key_holds_for_all_connections_of_a_process_of_uvicorn():
    limit = Limit(messages=1, per=3600, burst=3, excess="close", key=lambda request: request.path)
    async with serving(counting, protocol(limits=limit)) as served:
        for expected in (3, 0):
            with await served.connect() as peer:
                for number in range(4):
                    await peer.frame(TEXT, b"%d" % number)
                frames = [(await peer.read_frame()).opcode for _ in range(expected)]
                assert frames == [TEXT] * expected
                assert (await peer.read_close()).code == 1008
                peer.fin()


@pytest.mark.parametrize("over", ["uvicorn", "mount"])
async def test_rate_limit_refuses_before_the_application_is_called(over):
    called = []

    async def app(scope, receive, send):
        called.append(scope["type"])
        await counting(scope, receive, send)

    cls = protocol()
    cls.rate_limit(1, per=3600)
    async with serving(app, cls) if over == "uvicorn" else mounted(app) as served:
        if over == "mount":
            served.server.rate_limit(1, per=3600)
        with await served.connect() as peer:
            await peer.close()
            await peer.read_to_the_end()
        with await RawPeer.connect_tcp(served.port) as peer:
            await peer.write(peer.request())
            head = await peer.read_head()
            assert head.startswith("HTTP/1.1 429 ")
            assert 3000 <= int(re.search(r"\r\nRetry-After: (\d+)\r\n", head)[1]) <= 3600
            peer.fin()
    assert called == ["websocket"]


async def test_the_rate_limits_of_a_class_of_uvicorn_are_its_own_and_inherited(caplog):
    base, other = protocol(), protocol()
    base.rate_limit(1, per=3600, key=lambda request: request.query["user"])
    derived = type("Derived", (base,), {"__slots__": ()})
    derived.rate_limit(2, per=3600, key="server")

    async def status(served, target):
        with await served.reach() as peer:
            await peer.write(peer.request(target))
            head = await peer.read_head()
            peer.fin()
            return int(head.split()[1])

    async with serving(counting, derived) as served:
        # The second user is refused by the limit of the derived class, which counts no refused openings.
        targets = ["/?user=a", "/?user=a", "/?user=b", "/?user=c"]
        assert [await status(served, target) for target in targets] == [101, 429, 101, 429]
        assert await status(served, "/") == 500
        assert "KeyError" in caplog.text
    async with serving(counting, other) as served:
        assert [await status(served, "/") for _ in range(4)] == [101] * 4
