"""The callback and the log lines of requests that are refused or answered too late."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

import pytest

from endwell import HandshakeRejected, RequestRefused, Response, Server, connect
from endwell.aio.syscalls import monotonic
from endwell.server.dispatch import Dispatcher
from tests.pair import nothing_left_behind, until
from tests.raw import BOUND, RawPeer


async def answer(server, request, host=b"localhost"):
    """The head and the body of the response to a raw request."""
    with await RawPeer.connect_tcp(server.port) as peer:
        await peer.write(request.replace(b"Host: localhost", b"Host: " + host))
        async with asyncio.timeout(BOUND):
            while await peer.more():
                pass
        return bytes(peer._received).decode()


def get(path, *lines):
    lines = lines or ("Connection: close",)
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{''.join(line + chr(13) + chr(10) for line in lines)}\r\n".encode()


def lines(caplog, level=logging.INFO):
    records = [
        record for record in caplog.records if record.name == "endwell.server" and record.levelno == level
    ]
    return [record.getMessage() for record in records if record.msg != "%s"]  # the result of the drain


def refusing(**options):
    """A server that refuses in every way, and the calls of its callback."""
    server, told = Server(**options), []
    server.on_refused(lambda request, status, reason: told.append((request and request.path, status, reason)))

    @server.process_request
    def hook(request):
        return (
            Response(401) if request.path == "/secret" else Response(302) if request.path == "/old" else None
        )

    @server.get("/raises")
    def raises(request):
        raise RequestRefused("not for you")

    server.static("/files", Path(__file__).parent)
    server.get("/page")(lambda request: Response(404))
    server.get("/broken")(lambda request: 1 / 0)

    @server.websocket("/ws")
    async def ws(ws):
        await ws.closed

    return server, told


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
ORIGIN = "pages of this origin may not connect here"


@pytest.mark.parametrize(
    ("request_", "told", "line"),
    [
        (get("/none?token=s"), ("/none", 404, "no route has this path"), "'GET' '/none' from 127.0.0.1:"),
        (get("/none", *UPGRADE), ("/none", 404, "no route has this path"), "'GET' '/none' from 127.0.0.1:"),
        (get("/ws"), ("/ws", 426, "this path is a WebSocket endpoint: send an Upgrade"), "'GET' '/ws' from"),
        (
            get("/ws", *UPGRADE, "Origin: http://localhost:8080"),
            ("/ws", 403, ORIGIN),
            "'GET' '/ws' (Origin 'http://localhost:8080') from 127.0.0.1:",
        ),
        (
            get("/secret", *UPGRADE),
            ("/secret", 401, "answered by the process_request hook"),
            "'GET' '/secret' from",
        ),
        (get("/files/none"), ("/files/none", 404, "there is no such file"), "'GET' '/files/none' from"),
        (
            get("/files/test_refused.py", "Range: bytes=9999999-"),
            ("/files/test_refused.py", 416, "the file has no such range"),
            "'GET' '/files/test_refused.py' from",
        ),
        (get("/raises"), ("/raises", 400, "not for you"), "'GET' '/raises' from"),
        (b"nonsense\r\n\r\n", (None, 400, "the "), "a malformed request from 127.0.0.1:"),
    ],
)
async def test_a_refused_request_is_reported_and_logged_once(caplog, request_, told, line):
    caplog.set_level(logging.INFO, "endwell.server")
    server, heard = refusing()
    async with server.serving():
        assert (await answer(server, request_)).startswith(f"HTTP/1.1 {told[1]} ")
    ((path, status, reason),) = heard
    assert (path, status) == told[:2]
    assert reason.startswith(told[2])
    (logged,) = lines(caplog)
    assert logged.startswith(f"refused {line}")
    assert f" with {status}: {reason}" in logged
    assert "token" not in logged


async def test_the_log_line_of_a_refused_origin_names_the_host(caplog):
    """Like behind nginx with "proxy_set_header Host $host", on another port than 80."""
    caplog.set_level(logging.INFO, "endwell.server")
    server, _ = refusing()
    async with server.serving():
        await answer(server, get("/ws", *UPGRADE, "Origin: http://localhost:8080"))
    (logged,) = lines(caplog)
    assert logged.endswith(
        f"with 403: {ORIGIN} (it is not 'http://localhost', the scheme and Host of the request)"
    )


async def test_a_request_for_another_host_is_reported(caplog):
    caplog.set_level(logging.INFO, "endwell.server")
    server, heard = refusing(allowed_hosts=["127.0.0.1"])
    async with server.serving():
        await answer(server, get("/ws", *UPGRADE))
    assert [each[:2] for each in heard] == [("/ws", 421)]
    assert lines(caplog)[0].endswith("(it is for 'localhost')")


async def test_a_failing_hook_or_page_is_reported_with_its_own_line(caplog):
    caplog.set_level(logging.INFO, "endwell.server")
    server, heard = refusing()
    async with server.serving():
        await answer(server, get("/broken"))
    assert heard == [("/broken", 500, "internal error")]
    assert lines(caplog) == []
    (line,) = lines(caplog, logging.ERROR)
    assert line.startswith("answering '/broken' for 127.0.0.1:")
    assert line.endswith(" failed")


@pytest.mark.parametrize("path", ["/page", "/old"])
async def test_responses_of_pages_and_redirects_are_no_refusals(caplog, path):
    caplog.set_level(logging.INFO, "endwell.server")
    server, heard = refusing()
    async with server.serving():
        await answer(server, get(path))
    assert heard == []
    assert lines(caplog) == []


async def test_a_failing_callback_is_logged_and_the_response_is_sent(caplog):
    server = Server()
    server.on_refused(lambda *_: 1 / 0)
    async with server.serving():
        assert (await answer(server, get("/"))).startswith("HTTP/1.1 404 ")
    (line,) = lines(caplog, logging.ERROR)
    assert line.startswith("on_refused callback <function ")
    with pytest.raises(TypeError, match="callback must be a plain function"):
        server.on_refused(asyncio.sleep)


# --- limits --------------------------------------------------------------------


async def test_reaching_and_leaving_max_connections_is_logged_once_each(caplog):
    server, heard = refusing(max_connections=2)
    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}/ws"
        first, second = await connect(url), await connect(url)
        assert lines(caplog, logging.WARNING) == []
        for _ in range(3):
            with pytest.raises(HandshakeRejected, match="503"):
                await connect(url)
        reached = "max_connections (2) is reached: more are refused with 503"
        assert lines(caplog, logging.WARNING) == [reached]
        await first.close()
        over = "max_connections (2) is no longer reached; refused meanwhile: 3"
        await until(lambda: lines(caplog, logging.WARNING) == [reached, over])
        await second.close()
    assert heard == [("/ws", 503, "there are too many connections; try again later")] * 3


async def test_reaching_and_leaving_max_threads_is_logged_once_each(caplog):
    server = Server(max_threads=1)

    @server.websocket("/")
    def handler(ws):
        ws.read()

    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}/"
        first = await connect(url)
        for _ in range(3):
            with pytest.raises(HandshakeRejected, match="503"):
                await connect(url)
        reached = "max_threads (1) is reached: more are refused with 503"
        assert lines(caplog, logging.WARNING) == [reached]
        await first.close()
        over = "max_threads (1) is no longer reached; refused meanwhile: 3"
        await until(lambda: lines(caplog, logging.WARNING) == [reached, over])


# --- too slow ------------------------------------------------------------------


@pytest.mark.parametrize("what", ["page", "hook", "hook of a WebSocket"])
@pytest.mark.parametrize(
    "how", ["async", "async, swallows its cancellation", "async, refuses late", "async, fails late", "plain"]
)
async def test_a_request_slower_than_open_timeout_gives_503_and_is_named(what, how, caplog):
    server, heard, cancelled, release = Server(), [], [], threading.Event()
    server.on_refused(lambda request, status, reason: heard.append((request.path, status)))

    async def slow(request, name="x"):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            if how == "async":
                raise
            if how == "async, refuses late":
                return Response(403)
            if how == "async, fails late":
                raise OSError from None
        return "too late"

    def plain(request, name="x"):
        release.wait()
        return "too late"

    function = plain if how == "plain" else slow
    if what == "page":
        server.get("/page/{name}")(function)
    else:
        server.process_request(function)
    async with nothing_left_behind(), server.serving():
        # The sockets keep the default, within which a busy machine delivers the request.
        server._dispatcher.options = server.options.replace(open_timeout=0.2)
        head = await answer(server, get("/page/a?x=1", *(UPGRADE if "WebSocket" in what else ())))
        release.set()
        await until(lambda: not server._dispatcher.tasks)
    assert head.startswith("HTTP/1.1 503 ")
    assert "\r\nRetry-After: " in head
    assert head.count("HTTP/1.1") == 1
    assert "too late" not in head
    assert heard == [("/page/a", 503)]
    assert cancelled == ([] if how == "plain" else [True])
    (line,) = lines(caplog, logging.WARNING)
    assert line.endswith(" took longer than open_timeout (0.2 s): the answer is 503")
    assert line.startswith("the page '/page/{name}' (" if what == "page" else "the process_request hook ")
    assert function.__qualname__ in line


async def test_a_stall_before_the_hook_does_not_count_for_open_timeout(monkeypatch):
    server = Server(open_timeout=2.5)
    dispatch = Dispatcher.__call__

    def stalled(self, exchange):
        dispatch(self, exchange)
        time.sleep(2.6)

    monkeypatch.setattr(Dispatcher, "__call__", stalled)

    @server.process_request
    async def hook(request):
        return Response(204)

    async with server.serving():
        assert (await answer(server, get("/"))).startswith("HTTP/1.1 204 ")


@pytest.mark.virtual_clock
async def test_open_timeout_of_a_page_starts_at_the_end_of_the_request():
    server = Server(open_timeout=3)

    @server.get("/")
    async def page(request):
        await asyncio.sleep(3600)

    async with server.serving():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(get("/")[:-2])
            await asyncio.sleep(0.5)
            began = monotonic()
            await peer.write(b"\r\n")
            assert (await peer.read_head()).startswith("HTTP/1.1 503 ")
            assert monotonic() - began > 2.95  # not the rest of it since the connection
            peer.fin()


# --- allowed hosts ----------------------------------------------------------------


async def test_only_a_health_page_accepts_any_host():
    server = Server(allowed_hosts=["chat.example", "10.0.0.0/8"])
    server.get("/healthz", any_host=True)(lambda request: "ok")
    server.get("/page")(lambda request: "page")

    @server.websocket("/healthz")
    async def ws(ws):
        await ws.closed

    async with server.serving():
        for host, path, status in (
            (b"192.168.0.7:8080", "/healthz", "200"),
            (b"192.168.0.7:8080", "/healthz?x=1", "200"),
            (b"192.168.0.7:8080", "/page", "421"),
            (b"192.168.0.7:8080", "/none", "421"),
            (b"10.1.2.3:8080", "/page", "200"),
            (b"chat.example", "/page", "200"),
        ):
            assert (await answer(server, get(path), host)).startswith(f"HTTP/1.1 {status} ")
        upgrade = get("/healthz", *UPGRADE)
        assert (await answer(server, upgrade, b"192.168.0.7")).startswith("HTTP/1.1 421 ")


# --- serving twice ------------------------------------------------------------------


async def test_serving_twice_at_once_raises_and_the_server_keeps_serving():
    server = Server()
    server.get("/")(lambda request: "here")
    async with server.serving():
        port = server.port
        with pytest.raises(RuntimeError, match="already serves"):
            async with server.serving():
                raise AssertionError("it must not start")
        assert server.port == port
        assert (await answer(server, get("/"))).endswith("here")
    async with server.serving():
        assert (await answer(server, get("/"))).endswith("here")


async def test_a_response_that_cannot_be_serialized_gives_500():
    server = Server()
    server.get("/typed")(lambda request: Response(200, None, "text"))
    server.process_request(
        lambda request: Response(401, {"WWW-Authenticate": "Bearer"}) if request.path == "/secret" else None
    )
    async with server.serving():
        assert (await answer(server, get("/typed"))).startswith("HTTP/1.1 500 ")
        assert "\r\nWWW-Authenticate: Bearer\r\n" in await answer(server, get("/secret"))
