"""The accept function of a route, the state of a request, and the options of a route."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Accept, HandshakeRejected, Response, Server, connect
from tests.pair import nothing_left_behind, until, within
from tests.raw import NONCE, PLAIN, RawPeer


def as_given(kind, function):
    """``function`` as a plain or as a coroutine function."""
    if kind == "plain":
        return function

    async def coroutine(request):
        return function(request)

    return coroutine


@pytest.fixture(params=["plain", "async"])
def kind(request):
    return request.param


def serving(server, transport):
    return server.serving(ssl=transport.server)


def url(server, transport, path="/"):
    return f"{'ws' if transport.server is None else 'wss'}://127.0.0.1:{server.port}{path}"


async def test_headers_cookies_subprotocol_and_state_go_out_with_the_101(kind, face, transport):
    server, seen = Server(subprotocols=["a", "b"]), []

    def decide(request):
        answer = Accept(
            subprotocol="b", headers=[("X-A", "1"), ("X-A", "2")], state={"user": request.params["who"]}
        )
        answer.set_cookie("session", "abc", httponly=True)
        return answer

    async def script(ws, who):
        seen.append((ws.request.state, ws.subprotocol, ws.response.headers.get_all("X-A"), who))
        await ws.close()

    server.websocket("/{who}", accept=as_given(kind, decide))(face.handler(script))
    async with nothing_left_behind(), serving(server, transport):
        ws = await within(
            connect(url(server, transport, "/ann"), ssl=transport.client, subprotocols=["a", "b"])
        )
        await within(ws.wait_closed())
        await until(lambda: seen)
    assert ws.subprotocol == "b"
    assert ws.response.headers.get_all("X-A") == ["1", "2"]
    assert ws.response.headers["Set-Cookie"] == "session=abc; Path=/; SameSite=lax; HttpOnly".replace(
        "lax", "Lax"
    )
    assert seen == [({"user": "ann"}, "b", ["1", "2"], "ann")]


async def test_the_101_that_was_sent_is_kept_byte_for_byte(transport):
    server, responses = Server(), []

    @server.websocket("/", accept=lambda request: Accept(headers={"X-Once": str(len(responses))}))
    async def handler(ws):
        responses.append(ws.response)
        await ws.closed

    async with serving(server, transport), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(peer.request())
            head = await peer.read_head()
            await until(lambda: responses)
            assert responses[0].serialize() == head.encode() + b"\r\n\r\n"
            await peer.close()
            await peer.read_to_the_end()


async def test_a_response_refuses_and_is_told_like_any_refusal(kind, transport, caplog):
    server, told = Server(), []
    server.on_refused(lambda request, status, reason: told.append((request.path, status, reason)))

    def refuse(request):
        return Response.text("no seat", 403, {"X-Why": "full"})

    @server.websocket("/", accept=as_given(kind, refuse))
    async def handler(ws):
        told.append("the handler ran")

    async with serving(server, transport), nothing_left_behind():
        with pytest.raises(HandshakeRejected) as raised:
            await within(connect(url(server, transport), ssl=transport.client))
    assert raised.value.response.status == 403
    assert (raised.value.response.body, raised.value.response.headers["X-Why"]) == (b"no seat", "full")
    assert [(path, status) for path, status, _ in told] == [("/", 403)]
    assert "the accept function of '/'" in told[0][2]


async def test_none_accepts_as_without_a_function(kind):
    server = Server()

    @server.websocket("/", accept=as_given(kind, lambda request: None))
    async def handler(ws):
        await ws.send("hello")

    async with server.serving(), connect(f"ws://127.0.0.1:{server.port}/") as ws:
        assert await within(ws.recv()) == "hello"


async def test_the_handshake_and_the_origin_are_checked_before_the_function_runs():
    server, ran = Server(), []

    @server.websocket("/", accept=ran.append)
    async def handler(ws):
        ran.append(ws)

    async with server.serving():
        for field in (b"Origin: http://evil.example", b"Sec-WebSocket-Key: x"):
            with await RawPeer.connect_tcp(server.port) as peer:
                await peer.write(peer.request()[:-2] + field + b"\r\n\r\n")
                assert (await peer.read_head())[9:12] in ("403", "400")
    assert ran == []


def changed(name):
    """An Accept that has got a field after it was made."""
    accept = Accept()
    accept.headers[name] = "close"
    return accept


@pytest.mark.parametrize(
    "returned",
    [
        *("yes", True, {"headers": {}}, Accept(subprotocol="never-offered")),
        *(changed("Connection"), changed("sec-websocket-extensions")),
    ],
    ids=lambda v: type(v).__name__,
)
async def test_what_the_function_may_not_return_is_a_500_and_logged(kind, returned, caplog):
    server, ran = Server(), []

    @server.websocket("/", accept=as_given(kind, lambda request: returned))
    async def handler(ws):
        ran.append(ws)

    async with server.serving(), nothing_left_behind():
        with pytest.raises(HandshakeRejected) as raised:
            await within(connect(f"ws://127.0.0.1:{server.port}/"))
    assert raised.value.response.status == 500
    assert ran == []
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 1


async def test_a_function_that_takes_too_long_is_answered_with_503(caplog):
    server = Server()

    async def forever(request):
        await asyncio.Event().wait()

    @server.websocket("/", accept=forever)
    async def handler(ws):
        pass

    async with server.serving(), nothing_left_behind():
        # The sockets keep the default, within which a busy machine delivers the request.
        server._dispatcher.options = server.options.replace(open_timeout=0.2)
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request())
            assert (await peer.read_head()).startswith("HTTP/1.1 503 ")
    assert any("the accept function of '/'" in record.getMessage() for record in caplog.records)


async def test_a_client_that_leaves_while_the_function_decides_opens_nothing():
    server, opened, entered, decided = Server(), [], asyncio.Event(), asyncio.Event()
    server.on_open(opened.append)

    async def decide(request):
        entered.set()
        await decided.wait()
        return Accept()

    @server.websocket("/", accept=decide)
    async def handler(ws):
        opened.append(ws)

    async with server.serving(), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request())
            await within(entered.wait())
            peer.reset()
        decided.set()
        await until(lambda: not server._dispatcher.tasks)


def test_an_accept_that_is_not_a_function_is_refused_at_registration():
    with pytest.raises(TypeError, match="accept takes a function"):
        Server().websocket("/", accept=Accept())


# --- the state of a request ---------------------------------------------------


async def test_a_hook_sets_state_that_the_handler_reads(kind, face):
    server, seen = Server(), []

    def hook(request):
        request.state["user"] = "ann"

    server.process_request(as_given(kind, hook))

    async def script(ws):
        seen.append(ws.request.state)
        await ws.close()

    server.websocket("/", accept=lambda request: Accept(state={"seat": 1}))(face.handler(script))
    async with server.serving():
        async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await within(ws.wait_closed())
        await until(lambda: seen)
    assert seen == [{"user": "ann", "seat": 1}]


@pytest.mark.parametrize("name", ["state", "_state", "X-State", "endwell-state", "user"])
async def test_a_field_of_the_client_is_never_state(name, transport):
    server, seen = Server(), []

    @server.websocket("/")
    async def handler(ws):
        seen.append(ws.request.state)

    async with serving(server, transport):
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(
                peer.request("/?state=evil")[:-2] + f'{name}: {{"user": "root"}}\r\n\r\n'.encode()
            )
            await peer.read_head()
            await peer.read_to_the_end(answer=True)
    assert seen == [{}]


# --- the options of a route ----------------------------------------------------


async def test_a_route_has_its_own_size_origins_subprotocols_and_compression(face, transport):
    server = Server(max_size=100, subprotocols=["a"])

    async def echo(ws, **params):
        async for message in ws:
            await ws.send(message)

    server.websocket("/small")(face.handler(echo))
    own = {"max_size": 2**21, "subprotocols": ["b"], "compression": None, "origins": ["https://a.example"]}
    server.websocket("/large", **own)(face.handler(echo))
    offer = {"ssl": transport.client, "subprotocols": ["a", "b"], "max_size": None}
    async with serving(server, transport), nothing_left_behind():
        async with connect(
            url(server, transport, "/large"), **offer, additional_headers={"Origin": "https://a.example"}
        ) as ws:
            assert ws.subprotocol == "b"
            assert "Sec-WebSocket-Extensions" not in ws.response.headers
            await ws.send("x" * 2**20)
            assert len(await within(ws.recv())) == 2**20
        async with connect(url(server, transport, "/small"), **offer) as ws:
            assert ws.subprotocol == "a"
            assert "Sec-WebSocket-Extensions" in ws.response.headers
            await ws.send("x" * 101)
            assert (await within(ws.wait_closed())).received.code == 1009
        with pytest.raises(HandshakeRejected) as raised:
            await connect(
                url(server, transport, "/small"), **offer, additional_headers={"Origin": "https://a.example"}
            )
    assert raised.value.response.status == 403


@pytest.mark.parametrize("when", ["before serving", "while serving"])
@pytest.mark.parametrize("decides", [False, True])
async def test_a_route_with_options_has_the_servers_newest_ones_for_the_rest(when, decides):
    server = Server(origins=["https://old.example"])
    accept = (lambda request: None) if decides else None

    @server.websocket("/", max_size=10, accept=accept)
    async def handler(ws):
        await ws.wait_closed()

    @server.websocket("/own", origins=["https://own.example"], accept=accept)
    async def own(ws):
        await ws.wait_closed()

    def change():
        server.options = server.options.replace(origins=["https://new.example"], subprotocols=["b"])

    async def opened(path, origin):
        fields = {"Origin": f"https://{origin}.example"}
        try:
            async with connect(url(server, PLAIN, path), subprotocols=["b"], additional_headers=fields) as ws:
                return ws.subprotocol
        except HandshakeRejected as exc:
            return exc.response.status

    if when == "before serving":
        change()
    async with nothing_left_behind(), server.serving():
        if when == "while serving":
            assert await within(opened("/", "old")) is None
            change()
        assert await within(opened("/", "old")) == 403
        assert await within(opened("/", "new")) == "b"
        assert await within(opened("/own", "new")) == 403
        assert await within(opened("/own", "own")) == "b"
        async with connect(url(server, PLAIN), additional_headers={"Origin": "https://new.example"}) as ws:
            await ws.send("x" * 11)
            assert (await within(ws.wait_closed())).received.code == 1009


async def test_the_response_of_a_route_with_options_is_the_one_that_was_sent():
    server, seen = Server(), []

    @server.websocket("/", subprotocols=["b"], compression=None)
    async def handler(ws):
        seen.append(ws.response.serialize())

    async with server.serving():
        with await RawPeer.connect_tcp(server.port) as peer:
            request = peer.request()[:-2] + b"Sec-WebSocket-Protocol: a, b\r\n"
            await peer.write(request + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
            head = await peer.read_head()
            await peer.read_to_the_end(answer=True)
    assert NONCE in request.decode()
    assert seen == [head.encode() + b"\r\n\r\n"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_size": 0}, ValueError, "max_size"),
        ({"max_size": "1"}, TypeError, "max_size"),
        ({"subprotocols": "chat"}, TypeError, "subprotocols"),
        ({"compression": True}, TypeError, "compression"),
        ({"origins": ["nonsense"]}, ValueError, "origin"),
        ({"ping_interval": 1}, TypeError, "argument 'ping_interval'; it is an option of the whole Server$"),
        ({"max_line": 1}, TypeError, "argument 'max_line'; it is an option of the whole Server$"),
        ({"max_sise": 1}, TypeError, "did you mean 'max_size'"),
    ],
)
def test_the_options_of_a_route_are_checked_at_registration(options, error, text):
    with pytest.raises(error, match=text):
        Server().websocket("/", **options)
