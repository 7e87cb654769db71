from __future__ import annotations

import asyncio
import contextvars
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from unittest.mock import Mock

import pytest

import endwell
from tests.cli.process import PATIENCE
from tests.pair import within
from tests.raw import BOUND, PROMPT


async def fetch(server, head, *, path="/"):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"{head} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await within(reader.read())
    writer.close()
    await writer.wait_closed()
    return answer.decode("latin-1")


def url(server, path="/"):
    return f"ws://127.0.0.1:{server.port}{path}"


async def test_pages_and_websockets_share_a_port():
    server = endwell.Server()

    @server.get("/")
    def index(request):
        return endwell.Response.html("<p>hi")

    @server.get("/json/{name}")
    async def data(request, name):
        return {"name": name, "query": request.query}

    @server.websocket("/ws/{room}")
    async def room(ws, room):
        await ws.send(f"{room} {ws.request.params} {ws.request.remote_address[0]}")

    async with server.serving():
        assert (await fetch(server, "GET")).endswith("\r\n\r\n<p>hi")
        assert (await fetch(server, "HEAD")).endswith("\r\n\r\n")
        assert '{"name": "a b", "query": {"q": "1"}}' in await fetch(server, "GET", path="/json/a%20b?q=1")
        assert (await fetch(server, "POST")).startswith("HTTP/1.1 405")
        assert (await fetch(server, "GET", path="/none")).startswith("HTTP/1.1 404")
        assert (await fetch(server, "GET", path="/ws/a")).startswith("HTTP/1.1 426")
        async with endwell.connect(url(server, "/ws/a")) as ws:
            assert await ws.recv() == "a {'room': 'a'} 127.0.0.1"


async def test_a_folder_is_served(tmp_path):
    (tmp_path / "page.html").write_text("<p>page")
    server = endwell.Server()
    server.static("/files", tmp_path)
    async with server.serving():
        assert (await fetch(server, "GET", path="/files/page.html")).endswith("<p>page")
        assert (await fetch(server, "GET", path="/files/../x")).startswith("HTTP/1.1 404")


@pytest.mark.parametrize("first", ["static", "page"])
async def test_a_folder_path_redirects_to_its_slash_unless_it_is_a_page(tmp_path, first):
    (tmp_path / "index.html").write_text("<p>page")
    server = endwell.Server()
    if first == "page":
        server.get("/taken")(lambda request: "a page")
    for path in ("/s", "/taken/", "/a/b"):
        server.static(path, tmp_path)
    if first == "static":
        server.get("/taken")(lambda request: "a page")
    with pytest.raises(ValueError, match="same paths"):
        server.static("/s", tmp_path)
    async with server.serving():
        for path, location in (("/s?x=1&y", "./s/?x=1&y"), ("/a/b", "./b/")):
            answer = await fetch(server, "GET", path=path)
            assert answer.startswith("HTTP/1.1 301 ")
            assert f"\r\nLocation: {location}\r\n" in answer
        for path in ("/s/", "/a/b/", "/taken/"):
            assert (await fetch(server, "GET", path=path)).endswith("<p>page")
        assert (await fetch(server, "GET", path="/taken")).endswith("a page")


async def test_files_and_hooks_do_not_wait_for_application_threads(tmp_path, monkeypatch):
    (tmp_path / "page.html").write_text("<p>page")
    monkeypatch.setattr("endwell.server.threads.PAGES", 1)
    server, release, called = endwell.Server(), threading.Event(), []
    server.static("/files", tmp_path)
    server.browser_module()

    @server.process_request
    def hook(request):
        called.append(request.path)

    @server.get("/slow")
    def slow(request):
        release.wait()
        return "slow"

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    async with server.serving():
        try:
            work = asyncio.ensure_future(asyncio.to_thread(release.wait))
            page = asyncio.ensure_future(fetch(server, "GET", path="/slow"))
            while called != ["/slow"]:
                await asyncio.sleep(0.001)
            assert (await fetch(server, "GET", path="/files/page.html")).endswith("<p>page")
            assert "ReconnectingWebSocket" in await fetch(server, "GET", path="/endwell.js")
        finally:
            release.set()
        assert (await page).endswith("slow")
        await work


async def test_a_hook_receives_every_request_and_may_respond():
    server = endwell.Server()
    seen = []

    @server.process_request
    async def hook(request):
        seen.append(request.path)
        if request.path == "/old":
            return endwell.Response.redirect("/new")
        return None

    @server.websocket("/new")
    async def new(ws):
        await ws.send("here")

    async with server.serving():
        async with endwell.connect(url(server, "/old")) as ws:
            assert await ws.recv() == "here"
        assert seen == ["/old", "/new"]


async def test_hooks_run_in_order_until_one_responds():
    server = endwell.Server()
    called = []

    @server.process_request
    async def authenticate(request):
        called.append("authenticate")
        return None if request.query.get("token") == "right" else endwell.Response.text("who?\n", 401)

    @server.process_request
    def redirect(request):
        called.append("redirect")
        return endwell.Response.redirect("/new") if request.path == "/old" else None

    @server.process_request
    async def count(request):
        called.append("count")

    @server.websocket("/new")
    async def new(ws):
        await ws.send("here")

    async with server.serving():
        for path in ("/new", "/old", "/page"):
            assert (await fetch(server, "GET", path=path)).startswith("HTTP/1.1 401 ")
            with pytest.raises(endwell.HandshakeRejected, match="401"):
                await endwell.connect(url(server, path))
        assert called == ["authenticate"] * 6
        called.clear()
        assert (await fetch(server, "GET", path="/old?token=right")).startswith("HTTP/1.1 302 ")
        assert called == ["authenticate", "redirect"]
        called.clear()
        async with endwell.connect(url(server, "/new?token=right")) as ws:
            assert await ws.recv() == "here"
        assert called == ["authenticate", "redirect", "count"]


@pytest.mark.parametrize(
    ("decorator", "arguments"),
    [
        ("process_request", "request"),
        ("on_start", ""),
        ("on_stop", ""),
        ("on_drain", "drain"),
        ("on_open", "ws"),
        ("on_close", "ws, ending"),
        ("on_refused", "request, status, reason"),
        ("sessions.joined", "key, ws"),
        ("sessions.left", "key, ending"),
    ],
)
def test_a_callback_that_does_not_take_its_arguments_raises_at_registration(decorator, arguments):
    register = attrgetter(decorator)(endwell.Server())
    count = len(arguments.split(", ")) if arguments else 0

    def takes_too_many(a, b, c, d):
        pass

    def takes_one_less():
        pass

    with pytest.raises(TypeError, match=re.escape(f"takes_too_many({arguments}) will be called, but")):
        register(takes_too_many)
    if count:
        with pytest.raises(TypeError, match=re.escape(f"takes_one_less({arguments}) will be called, but")):
            register(takes_one_less)
    register(lambda *anything: None)
    register(Mock())


def test_an_accept_function_that_takes_no_request_raises_at_registration():
    def check():
        pass

    with pytest.raises(TypeError, match=r"check\(request\) will be called, but .*check\(\)"):
        endwell.Server().websocket("/", accept=check)


@pytest.mark.parametrize("decorator", ["process_request", "on_start", "on_stop", "on_drain"])
def test_a_callback_that_cannot_be_called_is_refused_when_it_is_registered(decorator):
    with pytest.raises(TypeError, match=f"{decorator} takes a function, not None"):
        getattr(endwell.Server(), decorator)(None)


async def test_a_failing_hook_or_page_gives_500_and_one_log_line(caplog):
    server = endwell.Server()

    @server.get("/page")
    def page(request):
        return 1 / 0

    @server.process_request
    def hook(request):
        return None if request.path == "/page" else 7

    async with server.serving():
        for path in ("/page", "/"):
            caplog.clear()
            answer = await fetch(server, "GET", path=path)
            assert answer.startswith("HTTP/1.1 500")
            assert answer.endswith("\r\n\r\ninternal error\n")
            assert sum(record.name == "endwell.server" for record in caplog.records) == 1


async def test_another_origin_is_refused_unless_listed():
    server = endwell.Server(origins=["https://good.example"])

    @server.websocket("/")
    async def handler(ws):
        await ws.send("in")

    async with server.serving():
        with pytest.raises(endwell.HandshakeRejected, match="403"):
            await endwell.connect(url(server), additional_headers={"Origin": "https://evil.example"})
        async with endwell.connect(url(server), additional_headers={"Origin": "https://good.example"}) as ws:
            assert await ws.recv() == "in"


async def test_every_ending_reaches_the_server_callback_once():
    server = endwell.Server()
    told = []
    server.on_close(lambda ws, ending: told.append((ws.request.path, ending)))
    server.on_close(lambda ws, ending: 1 / 0)

    @server.websocket("/{path:path}")
    async def handler(ws, path):
        await ws.read()

    async with server.serving():
        async with endwell.connect(url(server, "/a")):
            assert len(server.connections) == 1
        while not told:
            await asyncio.sleep(0.01)
        assert not server.connections
    ((path, ending),) = told
    assert (path, ending.cause) == ("/a", endwell.Cause.PEER_CLOSED)


async def test_a_route_can_cancel_its_handler_at_the_end():
    server = endwell.Server()
    cleaned = asyncio.Event()

    @server.websocket("/", cancel_on_end=True)
    async def handler(ws):
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.set()

    async with server.serving():
        async with endwell.connect(url(server)):
            pass
        await within(cleaned.wait())


async def test_stop_is_bounded_with_a_sleeping_handler_and_its_cleanup_runs(monkeypatch):
    # The client answers the Close within half of the grace, even on a stalled machine.
    monkeypatch.setattr("endwell.server.drain.timetable.CLEANUP_TIME", BOUND)
    monkeypatch.setattr("endwell.server.drain.timetable.ANSWER_TIME", BOUND)
    server = endwell.Server()
    cleaned = []

    @server.websocket("/")
    async def handler(ws):
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append(ws)

    loop = asyncio.get_running_loop()
    async with server.serving(grace=0.2):
        ws = await endwell.connect(url(server))
        began = loop.time()
    assert loop.time() - began < PROMPT
    ending = await ws.closed
    assert (ending.received.code, ending.clean) == (1001, True)
    # The handler may be cancelled before the server has read the client's answer.
    assert cleaned[0].ending.cause is endwell.Cause.SERVER_DRAINED


async def test_stop_is_bounded_with_a_handler_that_swallows_cancellation(monkeypatch):
    monkeypatch.setattr("endwell.server.drain.timetable.CLEANUP_TIME", 0.1)
    server = endwell.Server()
    release = asyncio.Event()

    @server.websocket("/")
    async def handler(ws):
        while not release.is_set():
            try:
                await asyncio.wait_for(release.wait(), 60)
            except asyncio.CancelledError:
                continue

    async with server.serving(grace=0.1):
        ws = await endwell.connect(url(server))
    assert (await ws.closed).received.code == 1001
    release.set()
    await asyncio.sleep(0.05)


async def test_a_page_cancelled_by_a_stop_gives_503():
    server = endwell.Server()
    reached = asyncio.Event()

    @server.get("/")
    async def slow(request):
        reached.set()
        await asyncio.sleep(3600)

    async with server.serving(grace=0.1):
        task = asyncio.create_task(fetch(server, "GET"))
        await reached.wait()
    assert (await task).startswith("HTTP/1.1 503 ")


async def test_a_plain_function_cannot_be_cancelled_on_end():
    with pytest.raises(ValueError, match="cancel"):
        endwell.Server().websocket("/", cancel_on_end=True)(lambda ws: None)


async def test_two_hosts_share_one_port():
    server = endwell.Server()
    async with server.serving(["127.0.0.1", "127.0.0.2"]):
        assert [host for host, _ in server.addresses] == ["127.0.0.1", "127.0.0.2"]
        assert len({port for _, port in server.addresses}) == 1


async def test_a_port_in_use_raises_and_leaves_nothing():
    server = endwell.Server()
    async with server.serving():
        with pytest.raises(OSError, match=f"in use: '127.0.0.1:{server.port}'"):
            async with endwell.Server().serving(port=server.port):
                pass


PROGRAM = """
import asyncio, contextlib, endwell, sys
server = endwell.Server()

@server.websocket("/")
async def handler(ws):
    over = asyncio.Event()
    ws.on_close(lambda ending: over.set())
    try:
        if sys.argv[1] == "until the end":
            await over.wait()
        else:
            await asyncio.sleep(float(sys.argv[1]))
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise
    finally:
        print(ws.ending and ws.ending.cause.name, flush=True)

@server.get("/port")
def port(request): ...

async def tell():
    while not server.addresses:
        await asyncio.sleep(0.01)
    print(server.port, flush=True)

original = server._serve_on
@contextlib.asynccontextmanager
async def serving(*args, **keywords):
    async with original(*args, **keywords):
        task = asyncio.create_task(tell())
        yield server
server._serve_on = serving
server.run(port=0, drain=endwell.Drain(deadline=float(sys.argv[2])))
print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_closes_every_connection_with_1001_and_run_returns(number):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "until the end", "120"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    try:
        port = await asyncio.to_thread(process.stdout.readline)
        async with endwell.connect(f"ws://127.0.0.1:{int(port)}/") as ws:
            process.send_signal(number)
            ending = await within(ws.closed)
        assert ending.received == endwell.Close(1001, "server stopping; retry 1-2s")
        output = await asyncio.to_thread(process.communicate, None, PATIENCE)
        assert output[0] == "SERVER_DRAINED\nstopped\n"
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


async def test_a_second_signal_stops_at_once():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "3600", "3600"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    try:
        port = await asyncio.to_thread(process.stdout.readline)
        async with endwell.connect(f"ws://127.0.0.1:{int(port)}/") as ws:
            process.send_signal(signal.SIGTERM)
            await within(ws.closed)  # the handler still runs
            process.send_signal(signal.SIGTERM)
            output = await asyncio.to_thread(process.communicate, None, PATIENCE)
        assert output[0] == "cancelled\nSERVER_DRAINED\nstopped\n"
    finally:
        process.kill()
        process.wait()


TWO_SIGNALS = """
import asyncio, endwell, os, signal
server = endwell.Server()

@server.websocket("/")
async def handler(ws):
    # Both have come before the loop attends to the first.
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(3600)

@server.on_drain
def draining(drain):
    os.write(1, f"{int(drain.code)} {drain.reason} {drain.deadline}\\n".encode())

@server.on_start
async def begin():
    async def connect():
        while not server.addresses:
            await asyncio.sleep(0.01)
        async with endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            os.write(1, f"{(await ws.closed).received}\\n".encode())
    global task
    task = asyncio.create_task(connect())

@server.on_stop
async def end():
    await task

server.run(port=0, drain=endwell.Drain(code=1012, reason="deploy", rate=None))
"""


def test_two_signals_at_once_drain_with_the_applications_code():
    program = [sys.executable, "-c", TWO_SIGNALS]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=PATIENCE)
    # The callback of the drain runs in a thread, so the lines come in any order.
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == ["1012 SERVICE_RESTART 'deploy'", "1012 deploy 0"]


WHO = contextvars.ContextVar("who", default="nobody")


async def test_a_handler_has_the_context_of_the_call_that_serves():
    server = endwell.Server()
    told = asyncio.get_running_loop().create_future()

    @server.websocket("/")
    async def handler(ws):
        await ws.send(WHO.get())
        WHO.set("a handler")

    @server.get("/")
    async def index(request):
        return WHO.get()

    server.on_close(lambda ws, ending: told.set_result(WHO.get()))
    other = endwell.Server()
    other.websocket("/")(handler)
    WHO.set("another server")
    async with other.serving(), endwell.connect(url(other)) as first:
        assert await first.recv() == "another server"
        WHO.set("the server")
        async with server.serving():
            WHO.set("a client")
            for _ in range(2):
                async with endwell.connect(url(server)) as ws:
                    assert await ws.recv() == "the server"
                    break
            assert (await fetch(server, "GET")).endswith("the server")
            assert await told == "the server"


@pytest.mark.parametrize("wrong", [None, "x", asyncio.sleep])
def test_a_coroutine_function_is_refused_as_a_callback(wrong):
    with pytest.raises(TypeError, match="callback must be a plain function"):
        endwell.Server().on_close(wrong)


async def test_a_callback_has_the_context_in_which_it_was_registered():
    server = endwell.Server()
    told = []

    @server.websocket("/")
    async def handler(ws):
        WHO.set("the handler")
        ws.on_close(lambda ending: told.append(WHO.get()))

    async with server.serving():
        WHO.set("the client")
        async with endwell.connect(url(server)) as ws:
            ws.on_close(lambda ending: told.append(WHO.get()))
            WHO.set("later")
            await ws.wait_closed()
    assert sorted(told) == ["the client", "the handler"]


async def test_the_library_answers_the_heartbeat_of_a_page():
    server, heard = endwell.Server(subprotocols=["chat"]), []

    @server.websocket("/")
    async def handler(ws):
        heard.extend([message async for message in ws])

    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}/?endwell=heartbeat"
        async with endwell.connect(url, subprotocols=["chat"]) as ws:
            assert ws.subprotocol == "chat"
            assert await ws.recv() == "\x06"
            await ws.send("\x05")
            assert await ws.recv() == "\x06"
            await ws.send("hello")
    assert heard == ["hello"]


async def test_the_browser_module_is_served_for_revalidation():
    server = endwell.Server()
    server.browser_module("/js/endwell.js")
    async with server.serving():
        head, _, module = (await fetch(server, "GET", path="/js/endwell.js")).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200")
    for field in (
        "Content-Type: text/javascript; charset=utf-8",
        "Cache-Control: no-cache",
        "ETag: ",
        "Access-Control-Allow-Origin: *",
    ):
        assert field in head
    assert "export class ReconnectingWebSocket" in module


@pytest.mark.parametrize(
    ("where", "error", "text"),
    [
        ({"port": 70000}, ValueError, "port must be between 0 and 65535, not 70000"),
        ({"port": -1}, ValueError, "port must be between 0 and 65535, not -1"),
        ({"port": "80"}, TypeError, "port must be a number, not '80'"),
        ({"port": True}, TypeError, "port must be a number, not True"),
        ({"host": []}, TypeError, "host must be a str"),
        ({"host": b"127.0.0.1"}, TypeError, "host must be a str"),
        ({"host": 5}, TypeError, "host must be a str"),
        ({"unix_path": b"/tmp/x"}, TypeError, "unix_path must be a path or None"),
        ({"unix_path": 5}, TypeError, "unix_path must be a path or None"),
        ({"unix_path": ""}, ValueError, "unix_path must be a path or an abstract name"),
        ({"unix_path": "/x\0y"}, ValueError, "unix_path must be a path or an abstract name"),
        ({"unix_path": "/" + "x" * 107}, OSError, "the path of a Unix socket has at most 107 bytes"),
        ({"ssl": True}, TypeError, "ssl must be an ssl.SSLContext or None, not True"),
        ({"grace": "10"}, TypeError, "grace .* must be a number, not '10'"),
        ({"grace": -1}, ValueError, "grace .* must be positive and finite, not -1"),
    ],
    ids=repr,
)
async def test_a_wrong_serving_argument_is_named_and_nothing_is_served(where, error, text):
    server = endwell.Server()
    with pytest.raises(error, match=text):
        async with server.serving(**where):
            pytest.fail("it serves")
    assert server.addresses == []
    async with server.serving():
        assert server.port


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: endwell.Server(max_sizes=1),
            r"^Server\(\) got an unexpected keyword argument 'max_sizes'; did you mean 'max_size'\?$",
        ),
        (lambda: endwell.Server(max_thread=1), r"Server\(\) .*'max_threads'\?$"),
        (lambda: endwell.Server(zzz=1), r"^Server\(\) got an unexpected keyword argument 'zzz'$"),
        (lambda: endwell.Options().replace(origin=[]), r"^Options.replace\(\) .*'origins'\?$"),
        (lambda: endwell.Drain().replace(windows=1), r"^Drain.replace\(\) .*'window'\?$"),
        (lambda: endwell.Server({}), "options must be an Options or None, not {}"),
        (lambda: endwell.Server("options"), "options must be an Options or None, not 'options'"),
    ],
)
def test_an_unknown_server_argument_is_named_with_a_suggestion(call, text):
    with pytest.raises(TypeError, match=text):
        call()


async def test_an_unknown_drain_argument_is_named_with_a_suggestion():
    server = endwell.Server()
    async with server.serving():
        with pytest.raises(TypeError, match=r"^drain\(\) got .* 'deadlin'; did you mean 'deadline'\?$"):
            await server.drain(deadlin=1)
        with pytest.raises(TypeError, match="drain must be a Drain or None, not 5"):
            await server.drain(5)
        assert server._drain_run is None


async def test_origins_can_be_changed_while_the_server_serves():
    server = endwell.Server(origins=["https://one.example"])

    @server.websocket("/")
    async def handler(ws):
        await ws.wait_closed()

    async with server.serving(port=0):
        uri, origin = f"ws://127.0.0.1:{server.port}/", {"Origin": "https://two.example"}
        with pytest.raises(endwell.HandshakeRejected, match="403"):
            await endwell.connect(uri, additional_headers=origin)
        server.options = server.options.replace(origins=["https://two.example"])
        async with endwell.connect(uri, additional_headers=origin):
            pass
