"""HTTP routes: methods, the bodies of requests, and streamed responses."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import asynccontextmanager, suppress

import pytest

from endwell import Headers, Response, Server
from endwell.http import Query
from tests.pair import nothing_left_behind, until, within
from tests.raw import BOUND, PLAIN, RawPeer

FORM = "Content-Type: application/x-www-form-urlencoded"


def request_of(method, path, body=b"", *fields, length=True):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *fields]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks):
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


async def rest_of(peer):
    async with asyncio.timeout(BOUND):
        while await peer.more():
            pass
    return bytes(peer._received)


@asynccontextmanager
async def asking(server, transport=PLAIN, request=None, **how):
    """A client that has sent ``request``; by default, for the page ``/``."""
    with await RawPeer.connect_tcp(server.port, transport.client, **how) as peer:
        await peer.tls_handshake()
        await peer.write(request or request_of("GET", "/"))
        yield peer


async def ask(server, request, transport=PLAIN, **how):
    """The status, the fields and the body of the answer."""
    async with asking(server, transport, request, **how) as peer:
        head = await peer.read_head()
        body = await rest_of(peer)
    first, *lines = head.split("\r\n")
    headers = Headers(line.split(": ", 1) for line in lines)
    if headers.get("Transfer-Encoding") == "chunked":
        body = unchunked(body)
    return int(first.split(" ")[1]), headers, body


def unchunked(data):
    """The content of a complete chunked body."""
    content = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        if size == b"0":
            assert data == b"\r\n"
            return content
        content += data[: int(size, 16)]
        assert data[int(size, 16) :][:2] == b"\r\n"
        data = data[int(size, 16) + 2 :]


@pytest.fixture(params=["plain", "async"])
def kind(request):
    return request.param


def reader(kind, what="body"):
    """A handler that answers with what the request's body is."""

    def answer(value):
        return value if isinstance(value, bytes) else json.dumps(value).encode()

    if kind == "plain":
        return lambda request: answer(getattr(request, what)())

    async def handler(request):
        return answer(await getattr(request, what)())

    return handler


# --- bodies ---------------------------------------------------------------------


@pytest.mark.parametrize("bytewise", [False, True])
async def test_a_body_arrives_whole(kind, transport, bytewise):
    server = Server()
    server.route("/", methods=["POST"])(reader(kind))
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        for request in (
            request_of("POST", "/", b"hello"),
            request_of("POST", "/", chunked(b"hel", b"lo"), "Transfer-Encoding: chunked", length=False),
        ):
            status, _, body = await ask(server, request, transport, bytewise=bytewise)
            assert (status, body) == (200, b"hello")
        assert (await ask(server, request_of("POST", "/", length=False), transport))[::2] == (200, b"")


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_a_large_body_arrives_whole_whatever_the_handler_waits_for(kind, transport, coding):
    server = Server(max_body=2**22)
    server.route("/", methods=["PUT"])(reader(kind))
    content = bytes(range(256)) * 2**13
    parts = [content[at : at + 50_000] for at in range(0, len(content), 50_000)]
    request = (
        request_of("PUT", "/", content)
        if coding == "length"
        else request_of("PUT", "/", chunked(*parts), "Transfer-Encoding: chunked", length=False)
    )
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        status, _, body = await ask(server, request, transport)
    assert (status, body == content) == (200, True)


async def test_json_and_forms(kind):
    server = Server()
    server.route("/json", methods=["POST"])(reader(kind, "json"))
    server.route("/form", methods=["POST"])(reader(kind, "form"))
    async with server.serving():
        assert (await ask(server, request_of("POST", "/json", b'{"a": [1]}')))[2] == b'{"a": [1]}'
        form = request_of("POST", "/form", b"a=1&b=%C3%9F&a=2&c=", f"{FORM}; charset=utf-8")
        assert json.loads((await ask(server, form))[2]) == {"a": "2", "b": "\xdf", "c": ""}
        for path, body, fields, status in (
            ("/json", b"{", (), 400),
            ("/json", b"", (), 400),
            ("/json", b"\xff\xfe\xfd", (), 400),
            ("/json", b"NaN", (), 400),
            ("/json", b"[-Infinity]", (), 400),
            ("/json", b"[" * 200_000, (), 400),
            ("/form", b"a=%ff", (FORM,), 400),
            ("/form", b"\xff", (FORM,), 400),
            ("/form", b"&".join([b"a=1"] * 1001), (FORM,), 400),
            ("/form", b"a=1", (), 415),
            ("/form", b"a=1", ("Content-Type: multipart/form-data; boundary=x",), 415),
        ):
            assert (await ask(server, request_of("POST", path, body, *fields)))[0] == status, (
                path,
                body[:20],
            )


async def test_a_form_keeps_all_values_of_a_field():
    server, forms = Server(), []

    @server.route("/", methods=["POST"])
    async def handler(request):
        forms.append(await request.form())

    async with server.serving():
        assert (await ask(server, request_of("POST", "/", b"a=1&a=2", FORM)))[0] == 204
    assert isinstance(forms[0], Query)
    assert forms[0].get_all("a") == ["1", "2"]


async def test_a_body_can_be_read_again_and_a_cancelled_read_loses_nothing():
    server, bodies, begun = Server(), [], asyncio.Event()

    @server.route("/", methods=["POST"])
    async def handler(request):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await request.body()
        begun.set()
        bodies.extend([await request.body(), await request.body()])

    async with server.serving(), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(request_of("POST", "/", b"helloworld")[:-5])
            await within(begun.wait())
            await peer.write(b"world")
            assert (await peer.read_head()).startswith("HTTP/1.1 204 ")
            await rest_of(peer)
    assert bodies == [b"helloworld", b"helloworld"]


async def test_a_client_that_expects_100_continue_is_told_when_the_body_is_read(kind, transport):
    server = Server()
    server.route("/", methods=["POST"])(reader(kind))
    async with server.serving(ssl=transport.server), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(request_of("POST", "/", b"hello", "Expect: 100-continue")[:-5])
            assert await peer.read_head() == "HTTP/1.1 100 Continue"
            await peer.write(b"hello")
            assert (await peer.read_head()).startswith("HTTP/1.1 200 ")
            assert await rest_of(peer) == b"hello"


async def test_a_handler_that_does_not_read_the_body_answers_at_once(transport):
    server = Server()

    @server.route("/", methods=["POST"])
    async def handler(request):
        return "no need"

    async with server.serving(ssl=transport.server), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(request_of("POST", "/", b"x" * 2**18)[:100])
            assert (await peer.read_head()).startswith("HTTP/1.1 200 ")
            # The rest is discarded, so that no reset destroys the answer.
            await peer.write(b"x" * 2**17)
            assert await rest_of(peer) == b"no need"


@pytest.mark.virtual_clock
async def test_a_page_has_open_timeout_from_the_end_of_the_body_on():
    server, begun = Server(open_timeout=3), []

    @server.route("/", methods=["POST"])
    async def handler(request):
        begun.append(1)
        return await request.body()

    async with server.serving(), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(request_of("POST", "/", b"hello")[:-1])
            await until(lambda: begun)
            await asyncio.sleep(3.5)
            await peer.write(b"o")
            assert (await peer.read_head()).startswith("HTTP/1.1 200 ")
            await rest_of(peer)


async def test_an_async_hook_may_read_the_body():
    server = Server()

    @server.process_request
    async def hook(request):
        request.state["size"] = len(await request.body())

    server.route("/", methods=["POST"])(lambda request: f"{request.state['size']} {request.body()!r}")
    async with server.serving():
        assert (await ask(server, request_of("POST", "/", b"hello")))[2] == b"5 b'hello'"


# --- methods --------------------------------------------------------------------


async def test_each_method_has_its_handler_and_another_one_is_answered_with_allow():
    server = Server()
    server.get("/x")(lambda request: "got")
    server.route("/x", methods=["post", "PUT"])(lambda request: request.method)
    server.route("/{name}", methods=["DELETE"])(lambda request, name: f"deleted {name}")
    async with server.serving():
        assert (await ask(server, request_of("GET", "/x")))[2] == b"got"
        assert (await ask(server, request_of("HEAD", "/x")))[::2] == (200, b"")
        assert (await ask(server, request_of("POST", "/x")))[2] == b"POST"
        assert (await ask(server, request_of("PUT", "/x")))[2] == b"PUT"
        # A less specific path that has the method is better than none.
        assert (await ask(server, request_of("DELETE", "/x")))[2] == b"deleted x"
        status, headers, _ = await ask(server, request_of("PATCH", "/x"))
        assert (status, headers["Allow"]) == (405, "GET, HEAD, POST, PUT, DELETE")
        status, headers, _ = await ask(server, request_of("GET", "/y"))
        assert (status, headers["Allow"]) == (405, "DELETE")
        assert (await ask(server, request_of("POST", "/x/y")))[0] == 404


@pytest.mark.parametrize(
    ("methods", "error"),
    [
        ("GET", TypeError),
        ([], ValueError),
        (["FETCH"], ValueError),
        (["CONNECT"], ValueError),
        ([1], TypeError),
        (5, TypeError),
    ],
)
def test_methods_are_checked_at_registration(methods, error):
    with pytest.raises(error, match="method"):
        Server().route("/", methods=methods)


def test_one_path_has_one_handler_for_each_method():
    server = Server()
    server.get("/")(lambda request: None)
    with pytest.raises(ValueError, match="matches the same paths"):
        server.route("/", methods=["POST", "GET"])(lambda request: None)


@pytest.mark.parametrize("expects", [False, True])
async def test_a_generator_reads_the_body_of_its_request(transport, expects):
    """Its response has begun by then: a 100 would be a part of its body."""
    server, left = Server(), asyncio.Event()

    @server.route("/", methods=["POST"])
    async def handler(request):
        yield await request.body()
        yield b"!"
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with server.serving(ssl=transport.server), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            fields = ("Expect: 100-continue",) if expects else ()
            await peer.write(request_of("POST", "/", b"hello", *fields)[:-5])
            assert (await peer.read_head()).startswith("HTTP/1.1 200 ")
            await peer.write(b"hello")
            while b"!" not in peer._received:
                assert await peer.more()
            assert peer._received == chunked(b"hello", b"!")[:-5]
            peer.reset()
        await within(left.wait())


# --- streamed responses ---------------------------------------------------------


def streaming(kind, items, *after):
    """A handler whose response streams ``items``, and then calls ``after``."""
    if kind == "plain":

        def plain():
            yield from items
            for call in after:
                call()

        return lambda request: Response.stream(plain(), headers={"X-A": "1"})

    async def generator():
        for item in items:
            yield item
        for call in after:
            call()

    async def handler(request):
        return Response.stream(generator(), headers={"X-A": "1"})

    return handler


async def test_a_response_is_streamed_in_chunks(kind, transport):
    server = Server()
    server.get("/")(streaming(kind, ["a", b"", b"bc", bytearray(b"d"), "\xdf"]))
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        status, headers, body = await ask(server, request_of("GET", "/"), transport)
        assert (status, headers["X-A"], headers["Transfer-Encoding"]) == (200, "1", "chunked")
        assert "Content-Length" not in headers
        assert body == "abcd\xdf".encode()
        # HTTP/1.0 has no chunked coding: the end of TCP ends the body.
        old = request_of("GET", "/").replace(b"HTTP/1.1", b"HTTP/1.0")
        status, headers, body = await ask(server, old, transport)
        assert (status, "Transfer-Encoding" in headers, body) == (200, False, "abcd\xdf".encode())


async def test_head_of_a_streamed_response_has_no_body():
    server, produced = Server(), []
    server.get("/")(streaming("async", ["a"], lambda: produced.append(1)))
    async with server.serving(), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(request_of("HEAD", "/"))
            assert "Transfer-Encoding: chunked" in await peer.read_head()
            assert await rest_of(peer) == b""
    assert produced == []


async def test_a_generator_is_a_handler_of_its_own(kind):
    server = Server()
    if kind == "plain":

        @server.get("/")
        def handler(request):
            yield "a"
            yield threading.current_thread().name[:12]

    else:

        @server.get("/")
        async def handler(request):
            yield "a"
            yield threading.current_thread().name[:12]

    async with server.serving():
        body = (await ask(server, request_of("GET", "/")))[2]
    assert body == (b"aendwell page" if kind == "plain" else b"aMainThread")


async def test_a_chunk_arrives_before_the_next_one_is_produced(transport):
    server, more = Server(), asyncio.Event()

    @server.get("/")
    async def handler(request):
        yield "first"
        await more.wait()
        yield "second"

    async with server.serving(ssl=transport.server), nothing_left_behind(), asking(server, transport) as peer:
        await peer.read_head()
        while b"first" not in peer._received:
            assert await peer.more()
        more.set()
        assert b"second" in await rest_of(peer)


async def test_a_slow_client_slows_the_generator_down(transport):
    server, produced = Server(write_limit=2**16), []

    @server.get("/")
    async def handler(request):
        for _ in range(2000):
            produced.append(1)
            yield b"x" * 2**16

    async with (
        server.serving(ssl=transport.server, grace=0.1),
        nothing_left_behind(),
        asking(server, transport, buffer=2**16) as peer,
    ):
        await peer.read_head()
        count = -1
        while count < len(produced):
            count = len(produced)
            await asyncio.sleep(0.05)
        assert len(produced) < 200


async def test_a_client_that_takes_nothing_is_cut_after_write_timeout(kind):
    server = Server(write_timeout=0.2, write_limit=0)
    server.get("/")(streaming(kind, (b"x" * 2**20 for _ in range(10**6))))
    async with server.serving(), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port, buffer=2**16) as peer:
            await peer.write(request_of("GET", "/"))
            await peer.read_head()
            await until(lambda: not server._listener.openings and not server._dispatcher.tasks)


@pytest.mark.parametrize("fault", ["an exception", "a wrong type", "None", "a lone surrogate"])
async def test_a_generator_that_fails_shows_the_client_that_the_body_is_incomplete(
    kind, fault, transport, caplog
):
    server = Server()
    faulty = {"an exception": [], "a wrong type": [5], "None": [None], "a lone surrogate": ["\ud800"]}[fault]
    items = ["a", *faulty]
    server.get("/")(streaming(kind, items, lambda: 1 / 0))
    async with server.serving(ssl=transport.server), nothing_left_behind():
        async with asking(server, transport) as peer:
            await peer.read_head()
            body = await rest_of(peer)
        await until(lambda: caplog.records)
    assert not body.endswith(b"0\r\n\r\n")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_generator_whose_client_leaves_is_closed(transport, caplog):
    server, ended, begun = Server(), [], asyncio.Event()

    @server.get("/")
    async def handler(request):
        try:
            yield "a"
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async with server.serving(ssl=transport.server), nothing_left_behind():
        async with asking(server, transport) as peer:
            await within(begun.wait())
            await peer.until_acknowledged()
            peer.reset()
        await until(lambda: ended and not server._dispatcher.tasks)
    assert not caplog.records


@pytest.mark.parametrize("reads", [True, False])
async def test_a_quiet_generator_whose_client_sends_a_fin_goes_on_until_a_write_fails(
    reads, transport, caplog
):
    """Only a write shows whether the client has half-closed TCP and still reads, or has closed its socket."""
    server, ended, begun, more = Server(), [], asyncio.Event(), asyncio.Event()

    @server.get("/")
    async def handler(request):
        try:
            yield "first"
            begun.set()
            await more.wait()
            yield "second"
            if not reads:
                await asyncio.Event().wait()
        finally:
            ended.append(1)

    async with server.serving(ssl=transport.server), nothing_left_behind(), asking(server, transport) as peer:
        await within(begun.wait())
        (exchange,) = server._listener.openings
        while b"first" not in peer._received:
            assert await peer.more()
        await peer.send_close_notify()
        if reads:
            peer.fin()
        else:
            peer.sock.close()
        await until(lambda: exchange.half_closed)
        assert not ended
        more.set()
        if reads:
            assert (await rest_of(peer)).endswith(chunked(b"second"))
        await until(lambda: ended and not server._dispatcher.tasks)
    assert not caplog.records


async def test_the_cleanup_of_a_generator_is_not_cancelled(transport, caplog):
    """The server learns from a failed write that the client is gone, while the generator is not awaited."""
    server, cleaned = Server(), []

    @server.get("/")
    async def handler(request):
        try:
            yield "a"
            peer.reset()
            # The loop does not run, so that a write is what fails.
            while True:
                time.sleep(0.001)  # noqa: ASYNC251
                yield b"b" * 2**16
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async with server.serving(ssl=transport.server), nothing_left_behind(), asking(server, transport) as peer:
        await until(lambda: cleaned and not server._dispatcher.tasks)
    assert not caplog.records


@pytest.mark.parametrize("chunk", [b"x", b""], ids=["small", "empty"])
async def test_a_generator_that_never_waits_lets_other_tasks_run(chunk):
    server, turns = Server(), 0

    @server.get("/")
    async def handler(request):
        before = turns
        for _ in range(2000):
            yield chunk
        yield str(turns - before)

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with server.serving():
        counting = asyncio.ensure_future(count())
        body = (await ask(server, request_of("GET", "/")))[2]
        counting.cancel()
        await asyncio.wait([counting])
    assert int(body.lstrip(b"x")) >= 5


async def test_a_plain_generator_whose_client_leaves_while_it_works_is_closed_after_that(transport, caplog):
    server, closed, works, release = Server(), [], threading.Event(), threading.Event()

    @server.get("/")
    def handler(request):
        try:
            yield "a"
            works.set()
            release.wait()
            yield "b"
        finally:
            closed.append(threading.current_thread().name[:12])

    async with nothing_left_behind(), server.serving(ssl=transport.server):
        async with asking(server, transport) as peer:
            await peer.read_head()
            await until(works.is_set)
            peer.reset()
        await until(lambda: not server._dispatcher.tasks)
        assert closed == []
        release.set()
        await until(lambda: closed)
    assert closed == ["endwell page"]
    assert not caplog.records


async def test_a_bad_body_that_a_generator_reads_is_a_refusal_and_no_error(transport, caplog):
    """A client could fill the log with tracebacks."""
    server, told = Server(max_body=10), []
    server.on_refused(lambda request, status, reason: told.append(status))

    @server.route("/", methods=["POST"])
    async def handler(request):
        yield await request.body()

    async with nothing_left_behind(), server.serving(ssl=transport.server):
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(request_of("POST", "/", b"x" * 11))
            assert not (await rest_of(peer)).endswith(b"0\r\n\r\n")
        await until(lambda: told and not server._dispatcher.tasks)
    assert told == [413]
    assert not caplog.records
