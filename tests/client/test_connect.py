from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import SplitResult

import pytest

import endwell
import endwell.sync
from endwell.client.connect import MAX_REDIRECTS
from tests.pair import within
from tests.raw import RawServer, wss


@contextlib.asynccontextmanager
async def served(**options):
    """An echo server that records its requests."""
    server = endwell.Server(**options)
    server.seen = []

    @server.process_request
    def see(request):
        server.seen.append(request)

    @server.websocket("/{path:path}")
    async def echo(ws, path):
        async for message in ws:
            await ws.send(message)

    async with server.serving():
        server.url = f"ws://127.0.0.1:{server.port}"
        yield server


@contextlib.asynccontextmanager
async def answering(*answers):
    """A server that answers its n-th connection with the n-th of ``answers``; yields the request heads.

    ``{own}`` in an answer is its address.
    """
    heads, rest = [], list(answers)

    async def serve(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(rest.pop(0).replace("{own}", own()).encode("latin-1"))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.write_eof()
            await reader.read()
        writer.close()

    def own():
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield own(), heads


@contextlib.asynccontextmanager
async def silent():
    """A server that reads the request and never answers; the event is set once it has a request."""
    asked = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", asked


def redirect(location, status=302):
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"


async def test_connect_can_be_awaited_or_entered():
    async with served() as server:
        ws = await endwell.connect(server.url)
        await ws.send("a")
        assert await ws.recv() == "a"
        await ws.close()
        async with endwell.connect(server.url) as ws:
            await ws.send(b"b")
            assert await ws.recv() == b"b"
        assert ws.ending.cause is endwell.Cause.APP_CLOSED
        assert ws.ending.clean


async def test_leaving_the_block_by_cancellation_has_cause_cancelled():
    async with served() as server:
        entered = asyncio.Event()
        sockets = []

        async def client():
            async with endwell.connect(server.url) as ws:
                sockets.append(ws)
                entered.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(client())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sockets[0].ending.cause is endwell.Cause.CANCELLED
        assert sockets[0].ending.sent.code == 1001


async def test_headers_subprotocols_and_credentials_reach_the_server():
    async with served(subprotocols=["chat.v2", "chat.v1"]) as server:
        url = server.url.replace("ws://", "ws://user:p%40ss@")
        async with endwell.connect(
            url, additional_headers={"X-One": "1"}, subprotocols=["chat.v1", "other"]
        ) as ws:
            assert ws.subprotocol == "chat.v1"
        (request,) = server.seen
        assert request.headers["X-One"] == "1"
        assert request.headers["Authorization"] == "Basic dXNlcjpwQHNz"


async def test_a_refusal_has_the_response():
    async with served() as server:

        @server.process_request
        def refuse(request):
            return endwell.Response.text("who are you?", 401, endwell.Headers({"WWW-Authenticate": "Basic"}))

        with pytest.raises(endwell.HandshakeRejected, match="401") as caught:
            await endwell.connect(server.url)
        assert caught.value.response.body == b"who are you?"
        assert caught.value.response.headers["WWW-Authenticate"] == "Basic"
        ending = caught.value.ending
        assert (ending.cause, ending.initiator) == (
            endwell.Cause.HANDSHAKE_REJECTED,
            endwell.Initiator.PEER,
        )


async def test_redirects_are_followed_and_credentials_stay_with_their_origin():
    async with served() as server:
        async with answering(redirect(server.url + "/elsewhere")) as (address, heads):
            headers = [
                ("Authorization", "Bearer secret"),
                ("Cookie", "secret"),
                ("Host", "virtual"),
                ("X-Kept", "yes"),
            ]
            async with endwell.connect(f"ws://u:p@{address}/", additional_headers=headers) as ws:
                assert ws.request.path == "/elsewhere"
        assert "Authorization: Bearer secret" in heads[0]
        (request,) = server.seen
        assert "Authorization" not in request.headers
        assert "Cookie" not in request.headers
        assert request.headers["Host"] == server.url.removeprefix("ws://")
        assert request.headers["X-Kept"] == "yes"


async def test_a_redirect_within_the_origin_keeps_the_credentials():
    async with answering(redirect("/b"), "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno") as (
        address,
        heads,
    ):
        with pytest.raises(endwell.HandshakeRejected, match="403"):
            await endwell.connect(f"ws://{address}/a", additional_headers={"Cookie": "c"})
        assert "GET /b " in heads[1]
        assert "Cookie: c" in heads[1]


@pytest.mark.parametrize("location", ["/b", "ws://{own}/b"])
async def test_a_redirect_within_the_origin_keeps_the_user_of_the_uri(location, face):
    answers = [redirect(location), redirect("/c"), "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"]
    async with answering(*answers) as (address, heads):
        with pytest.raises(endwell.HandshakeRejected, match="403"):
            await within(face.connect(f"ws://u:p@{address}/a"))
    assert [head.count("Authorization: Basic dTpw\r\n") for head in heads] == [1, 1, 1]


@pytest.mark.parametrize(
    ("octets", "target"),
    [("/\xc3\xa9?\xc3\xa9", "/%C3%A9?%C3%A9"), ("/\xe9", "/%E9"), ("/%C3%A9", "/%C3%A9")],
)
async def test_a_location_with_octets_beyond_ascii_is_followed_as_browsers_do(octets, target):
    async with answering(redirect(octets), "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno") as (
        address,
        heads,
    ):
        with pytest.raises(endwell.HandshakeRejected, match="403"):
            await endwell.connect(f"ws://{address}/a")
    assert heads[1].startswith(f"GET {target} ")


async def test_an_http_location_counts_as_ws():
    async with served() as server:
        location = server.url.replace("ws://", "http://") + "/x"
        async with (
            answering(redirect(location)) as (address, _),
            endwell.connect(f"ws://{address}/") as ws,
        ):
            assert ws.request.path == "/x"


@pytest.mark.parametrize(
    ("location", "why"),
    [
        (
            "ftp://127.0.0.1/?secret",
            "to 'ftp://127.0.0.1/' is not followed: uri must begin with ws:// or wss://",
        ),
        (
            "ftp://me:secret@127.0.0.1/",
            "to 'ftp://127.0.0.1/' is not followed: uri must begin with ws:// or wss://",
        ),
        ("ws://[", "is not followed: "),
        ("ws://127.0.0.1/#f", "to 'ws://127.0.0.1/#f' is not followed: uri has a fragment"),
    ],
)
async def test_an_invalid_redirect_is_a_refusal_with_a_reason(location, why):
    async with answering(redirect(location)) as (address, _):
        with pytest.raises(endwell.HandshakeRejected) as caught:
            await endwell.connect(f"ws://{address}/")
    assert f"ws://{address}/: server refused with HTTP 302 Found; its redirect " in str(caught.value)
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_redirect_from_wss_to_ws_is_a_refusal_with_a_reason():
    transport = wss()
    with RawServer(transport.server) as listening:
        task = asyncio.ensure_future(endwell.connect(listening.uri, ssl=transport.client))
        with (
            await listening.accept(redirect("ws://127.0.0.1:1/").encode()),
            pytest.raises(
                endwell.HandshakeRejected, match="is not followed: it leads from TLS to plain text"
            ),
        ):
            await within(task)


async def test_redirects_are_limited():
    async with answering(*[redirect("/again")] * 100) as (address, heads):
        with pytest.raises(
            endwell.HandshakeRejected, match="is not followed: 10 redirects have been followed already"
        ):
            await endwell.connect(f"ws://{address}/")
        assert len(heads) == MAX_REDIRECTS + 1


@pytest.mark.virtual_clock
async def test_connect_ends_after_open_timeout_without_an_answer():
    with RawServer() as silent, pytest.raises(endwell.HandshakeError) as caught:
        await endwell.connect(silent.uri, open_timeout=25)
    ending = caught.value.ending
    assert (ending.cause, ending.tcp) == (endwell.Cause.HANDSHAKE_FAILED, endwell.TcpEnd.TIMEOUT)
    assert ending.duration == pytest.approx(25, abs=0.1)


async def test_connection_refused_is_a_network_error_without_tcp():
    with pytest.raises(endwell.HandshakeError) as caught:
        await endwell.connect("ws://127.0.0.1:1/")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert (caught.value.ending.cause, caught.value.ending.tcp) == (
        endwell.Cause.NETWORK_ERROR,
        endwell.TcpEnd.NONE,
    )


async def test_an_invalid_response_names_the_broken_rule():
    answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    async with answering(answer) as (address, _):
        with pytest.raises(endwell.HandshakeError, match="handshake failed") as caught:
            await endwell.connect(f"ws://{address}/")
        assert isinstance(caught.value.__cause__, endwell.InvalidHandshake)


async def test_a_connect_cancelled_in_any_phase_leaves_nothing():
    async with silent() as (url, asked):
        task = asyncio.ensure_future(endwell.connect(url))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_connect_cancelled_while_it_waits_for_credentials_leaves_nothing():
    asked, ends = asyncio.Event(), []

    async def headers():
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    task = asyncio.ensure_future(endwell.connect("ws://127.0.0.1:1/", additional_headers=headers))
    await within(asked.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(task)
    assert ends == ["cancelled"]


async def test_connect_works_over_a_unix_socket(tmp_path):
    server = endwell.Server()

    @server.websocket("/x")
    async def hello(ws):
        await ws.send(ws.request.headers["Host"])

    path = tmp_path / "socket"
    async with (
        server.serving(unix_path=path),
        endwell.connect("ws://name/x", unix_path=path) as ws,
    ):
        assert await ws.recv() == "name"
    assert not path.exists()


@pytest.mark.parametrize(
    ("keywords", "error", "name"),
    [
        ({"uri": "http://x/"}, ValueError, "uri"),
        ({"uri": "ws://x/#f"}, ValueError, "uri"),
        ({"uri": "ws://x/", "ssl": "context"}, TypeError, "ssl"),
        ({"uri": "ws://x/", "additional_headers": {"Upgrade": "x"}}, ValueError, "Upgrade"),
        ({"uri": "ws://x/", "additional_headers": {"X": "a\r\nb"}}, ValueError, "X"),
        ({"uri": "ws://x/", "subprotocols": "chat"}, TypeError, "subprotocols"),
        ({"uri": "ws://x/", "subprotocols": ["a b"]}, ValueError, "subprotocols"),
        ({"uri": None}, TypeError, "uri"),
        ({"uri": b"ws://x/"}, TypeError, "uri"),
        ({"uri": SplitResult("ws", "x", "/", "", "")}, TypeError, "uri"),
        ({"uri": "wss://x/", "ssl": True}, TypeError, "ssl"),
        ({"uri": "ws://x/", "additional_headers": {"X": None}}, TypeError, "X"),
        ({"uri": "ws://x/", "additional_headers": {"X": b"a"}}, TypeError, "X"),
        ({"uri": "ws://x/", "additional_headers": {b"X": "a"}}, TypeError, "header name"),
        ({"uri": "ws://x/", "additional_headers": {"X": "\u20ac"}}, ValueError, "X"),
        ({"uri": "ws://x/", "additional_headers": "X: a"}, TypeError, "additional_headers"),
        ({"uri": "ws://x/", "additional_headers": ["X: a"]}, TypeError, "additional_headers"),
        ({"uri": "ws://x/", "additional_headers": None}, TypeError, "additional_headers"),
        ({"uri": "ws://x/", "options": {"max_size": 1}}, TypeError, "options"),
        ({"uri": "ws://x/", "unix_path": 1}, TypeError, "unix_path"),
        ({"uri": "ws://x/", "nonsense": 1}, TypeError, "nonsense"),
        ({"uri": "ws://x/", "extra_headers": {}}, TypeError, "extra_headers"),
        ({"uri": "ws://x/", "max_size": -1}, ValueError, "max_size"),
    ],
)
def test_a_wrong_argument_raises_at_the_call_and_is_named(keywords, error, name):
    with pytest.raises(error, match=name):
        endwell.connect(**keywords)


@pytest.mark.parametrize("face", [endwell, endwell.sync])
@pytest.mark.parametrize(
    ("what", "keywords", "text"),
    [
        ("connect", {"max_sizes": 1}, r"^connect\(\) got .* 'max_sizes'; did you mean 'max_size'\?$"),
        ("connect", {"headers": {}}, r"^connect\(\) .*'additional_headers'\?$"),
        ("connect", {"origin": "https://a"}, r"^connect\(\) .*'additional_headers'\?$"),
        ("connect", {"timeout": 1}, r"^connect\(\) .*'open_timeout'\?$"),
        ("connect", {"zzz": 1}, r"^connect\(\) got an unexpected keyword argument 'zzz'$"),
        ("reconnecting", {"on_endings": print}, r"^reconnecting\(\) .*'on_ending'\?$"),
        ("reconnecting", {"max_retries": 3}, r"^reconnecting\(\) .*policy=RetryPolicy\(max_retries=...\)$"),
        ("reconnecting", {"policy": {}}, "policy must be a RetryPolicy or None, not {}"),
        ("reconnecting", {"options": {}}, "options must be an Options or None, not {}"),
    ],
)
def test_an_unknown_client_argument_is_named_with_a_suggestion(face, what, keywords, text):
    with pytest.raises(TypeError, match=text):
        getattr(face, what)("ws://127.0.0.1:1/", **keywords)
