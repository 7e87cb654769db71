"""A bearer token in the opening handshake, and new ones on the open connection: what a server makes of them."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import pickle
import threading
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta

import pytest

import endwell
from endwell import Accept, Cause, Close, Response
from tests.face import ASYNCIO, BLOCKING
from tests.pair import nothing_left_behind, until, within
from tests.raw import BOUND, RawPeer
from tests.wire.peer import TEXT

#: The token of the opening handshake, as proof that the message comes from the server.
GREETING = "\x1abearer secret-1"
REFUSED = Close(3000, "token refused")
EXPIRED = Close(3000, "authorization expired: fetch a new token; retry 0-1s")


def pair(token="secret-1"):
    return ["endwell.bearer", "bearer." + urlsafe_b64encode(token.encode()).decode().rstrip("=")]


def at(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


def renewal(token):
    return f"\x1abearer {token}"


class Site:
    """A server whose route has an ``accept`` function, both of the kind of ``face``."""

    def __init__(self, face, decide=None, **options):
        self.server = endwell.Server(**options)
        self.requests, self.tokens, self.got, self.endings, self.opened = [], [], [], [], []
        self.server.on_close(lambda _ws, ending: self.endings.append(ending))

        async def accept(request):
            self.requests.append(request)
            self.tokens.append(request.bearer)
            answer = decide(request) if decide else Accept(subject="ada", until=at(1000))
            return await answer if inspect.isawaitable(answer) else answer

        async def handler(ws):
            self.opened.append(face.for_handler(ws))
            async for message in ws:
                self.got.append(message)
                await ws.send(f"{ws.subject}: {message}")

        def plain(request):
            try:
                accept(request).send(None)
            except StopIteration as returned:
                return returned.value

        self.server.websocket("/", accept=plain if face is BLOCKING else accept)(face.handler(handler))

    def url(self, transport=None):
        secure = transport is not None and transport.client is not None
        return f"{'wss' if secure else 'ws'}://127.0.0.1:{self.server.port}/"


# --- the opening handshake ---------------------------------------------------------------------------


@pytest.mark.parametrize("others", [[], ["chat"]], ids=["alone", "beside another"])
async def test_the_application_gets_the_token_and_not_the_pair(face, transport, others, caplog):
    site = Site(face, subprotocols=["chat"])
    async with site.server.serving(ssl=transport.server):
        with caplog.at_level(logging.DEBUG):
            ws = await within(
                endwell.connect(
                    site.url(transport),
                    ssl=transport.client,
                    subprotocols=[*pair(), *others],
                    compression=None,
                )
            )
        assert await within(ws.recv()) == GREETING
        await ws.send("hello")
        assert await within(ws.recv()) == "ada: hello"
        (request,), (opened,) = site.requests, site.opened
        assert request.bearer == opened.request.bearer == "secret-1"
        # Chromium fails a handshake whose answer selects none of the offered names.
        assert ws.response.headers.get_all("Sec-WebSocket-Protocol") == (others or ["endwell.bearer"])
        assert opened.subprotocol == (others[0] if others else None)
        assert request.headers.list_of("Sec-WebSocket-Protocol") == others
        shown = repr(request) + repr(opened) + str(vars(type(request))) + repr([*request.headers])
        for hidden in ("secret-1", pair()[1]):
            assert hidden not in shown
            assert hidden not in caplog.text
        await ws.close()


async def test_other_subprotocols_that_begin_with_bearer_stay(face):
    site = Site(face, lambda request: Accept(subprotocol="bearer.x"))
    async with site.server.serving():
        ws = await endwell.connect(site.url(), subprotocols=["bearer.x", "bearer.y"])
        assert ws.subprotocol == "bearer.x"
        await ws.close()
    assert site.tokens == [None]
    assert site.requests[0].headers.list_of("Sec-WebSocket-Protocol") == ["bearer.x", "bearer.y"]


@pytest.mark.parametrize(
    ("field", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  a.b-c_d~e+f/g==", "a.b-c_d~e+f/g=="),
        ("Basic YTpi", None),
        ("Bearer", None),
        ("Bearer a b", None),
        ("Bearer é", None),
    ],
)
async def test_authorization_has_a_token_too(field, token, face):
    site = Site(face)
    async with site.server.serving():
        ws = await endwell.connect(site.url(), additional_headers={"Authorization": field})
        await ws.close()
    assert site.tokens == [token]
    assert not any(message == GREETING for message in site.got)


async def test_a_request_keeps_its_token_in_a_copy():
    site = Site(BLOCKING)
    async with site.server.serving():
        ws = await endwell.connect(site.url(), subprotocols=pair())
        await ws.close()
    for copied in (copy.copy(site.requests[0]), pickle.loads(pickle.dumps(site.requests[0]))):
        assert copied.bearer == "secret-1"


async def test_a_hook_can_check_the_token_and_refuse(face):
    site = Site(face)

    @site.server.process_request
    async def check(request):
        return None if request.bearer == "secret-2" else Response(401)

    async with site.server.serving():
        with pytest.raises(endwell.HandshakeRejected) as caught:
            await endwell.connect(site.url(), subprotocols=pair())
        assert caught.value.response.status == 401
        await (await endwell.connect(site.url(), subprotocols=pair("secret-2"))).close()


async def test_accept_authorizes_from_the_start(face, transport):
    site = Site(face, lambda request: Accept(subject=request.bearer, until=at(0.1)))
    async with site.server.serving(ssl=transport.server):
        ws = await endwell.connect(site.url(transport), ssl=transport.client, subprotocols=pair("ada"))
        assert (await within(ws.closed)).received == EXPIRED
        await until(lambda: site.endings)
        assert site.endings[0].cause is Cause.AUTH_EXPIRED
        assert site.opened[0].subject == "ada"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"until": 5}, TypeError, "until must be a datetime or None, not 5"),
        ({"until": datetime(2030, 1, 1)}, ValueError, "until must have a time zone"),  # noqa: DTZ001
        ({"subject": ""}, ValueError, "subject must not be empty"),
        ({"subject": 5}, TypeError, "subject must be a str or None, not 5"),
    ],
)
def test_accept_checks_subject_and_until(arguments, error, text):
    with pytest.raises(error, match=text):
        Accept(**arguments)


# --- new tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way_of_token", ["pair", "Authorization"])
async def test_a_new_token_extends_the_authorization(face, transport, way_of_token):
    site = Site(
        face, lambda request: Accept(subject="ada", until=at(1000), state={"last": request.bearer, "seen": 1})
    )
    how = {"subprotocols": pair()}
    if way_of_token == "Authorization":
        how = {"subprotocols": pair()[:1], "additional_headers": {"Authorization": "Bearer secret-1"}}
    async with site.server.serving(ssl=transport.server):
        ws = await endwell.connect(site.url(transport), ssl=transport.client, **how)
        assert await within(ws.recv()) == GREETING
        await ws.send("before")
        assert await within(ws.recv()) == "ada: before"
        await ws.send(renewal("secret-2"))
        await until(lambda: site.opened[0].request.bearer == "secret-2")
        assert site.opened[0].request.state == {"last": "secret-2", "seen": 1}
        await ws.send("after")
        assert await within(ws.recv()) == "ada: after"
        ending = await ws.close()
    await until(lambda: site.endings)
    assert site.tokens == ["secret-1", "secret-2"]
    if way_of_token == "Authorization":  # a function that reads the field gets the new token, too
        assert site.requests[1].headers["Authorization"] == "Bearer secret-2"
    assert site.requests[1].route == "/"
    assert site.got == ["before", "after"]
    assert (site.endings[0].messages_in, site.endings[0].messages_out) == (2, 2)
    assert ending.messages_in == 3  # this client does not know the greeting


async def test_the_last_accept_counts(face):
    lives = iter([1000, 0.1])
    site = Site(face, lambda request: Accept(until=at(next(lives))))
    async with site.server.serving():
        ws = await endwell.connect(site.url(), subprotocols=pair())
        await ws.send(renewal("secret-2"))
        assert (await within(ws.closed)).received == EXPIRED


async def test_none_keeps_what_the_handler_has_authorized():
    site = Site(ASYNCIO, lambda request: None)
    async with site.server.serving():
        ws = await endwell.connect(site.url(), subprotocols=pair())
        await until(lambda: site.opened)
        site.opened[0].authorize(subject="bob", until=at(0.2))
        await ws.send(renewal("secret-2"))
        await until(lambda: site.opened[0].request.bearer == "secret-2")
        assert site.opened[0].subject == "bob"
        assert (await within(ws.closed)).received == EXPIRED


async def test_a_revocation_counts_for_a_new_token_that_is_being_decided(face, transport):
    go = threading.Event()

    async def later():
        await until(go.is_set)
        return Accept(subject="ada")

    def decide(request):
        if request.bearer == "secret-1":
            return None
        if face is not BLOCKING:
            return later()
        assert go.wait(BOUND)
        return Accept(subject="ada")

    site = Site(face, decide)
    async with site.server.serving(ssl=transport.server):
        ws = await endwell.connect(site.url(transport), ssl=transport.client, subprotocols=pair())
        await ws.send(renewal("secret-2"))
        await until(lambda: len(site.tokens) == 2)
        assert await site.server.revoke("ada") == 0
        go.set()
        assert (await within(ws.closed)).received == Close(3003, "authorization revoked")
        await until(lambda: site.endings)
    assert site.endings[0].cause is Cause.AUTH_REVOKED


def refuse(request):
    raise endwell.RequestRefused("no")


@pytest.mark.parametrize(
    ("second", "close", "cause"),
    [
        (lambda request: Response(401), REFUSED, Cause.AUTH_REFUSED),
        (refuse, REFUSED, Cause.AUTH_REFUSED),
        (lambda request: Accept(subject="eve"), REFUSED, Cause.AUTH_REFUSED),
        (lambda request: 1 / 0, Close(1011), Cause.HANDLER_ERROR),
        (lambda request: "yes", Close(1011), Cause.HANDLER_ERROR),
    ],
    ids=["Response", "RequestRefused", "another subject", "exception", "wrong type"],
)
async def test_a_refused_token_closes_the_connection(second, close, cause, face, caplog):
    turns = [lambda request: Accept(subject="ada"), second]
    site = Site(face, lambda request: turns.pop(0)(request))  # noqa: PLW0108  (a turn for each call)
    async with nothing_left_behind(), site.server.serving():
        ws = await endwell.connect(site.url(), subprotocols=pair())
        await ws.send(renewal("secret-2"))
        assert (await within(ws.closed)).received == close
        await until(lambda: site.endings)
    assert site.endings[0].cause is cause
    assert ("the accept function of '/'" in caplog.text) == (cause is Cause.HANDLER_ERROR)
    assert "secret-2" not in caplog.text.partition("Traceback")[0]


async def test_no_message_after_a_refused_token_is_delivered():
    site = Site(BLOCKING, lambda request: Response(401) if request.bearer == "secret-2" else None)
    async with site.server.serving():
        with await within(_raw(site)) as peer:
            await peer.frame(TEXT, renewal("secret-2").encode())
            assert await peer.read_close() == REFUSED
            await peer.frame(TEXT, b"let me in")
            await peer.close(3000)
            await peer.read_to_the_end()
        await until(lambda: site.endings)
    assert site.got == []


async def _raw(site):
    peer = await RawPeer.connect_tcp(site.server.port)
    offered = ", ".join(pair()).encode()
    await peer.write(
        peer.request().replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: " + offered + b"\r\n\r\n")
    )
    assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
    assert (await peer.read_frame()).payload == GREETING.encode()
    return peer


async def test_one_token_is_decided_at_a_time_and_the_newest_counts():
    go, running = asyncio.Event(), []

    async def slowly(request):
        running.append(request.bearer)
        await go.wait()
        # A refusal of an older token does not count when a newer one has come.
        return Response(401) if request.bearer == "secret-2" else None

    site = Site(ASYNCIO, lambda request: slowly(request) if request.bearer != "secret-1" else None)
    async with site.server.serving():
        ws = await endwell.connect(site.url(), subprotocols=pair())
        assert await within(ws.recv()) == GREETING
        await ws.send(renewal("secret-2"))
        await until(lambda: running)
        for number in (3, 4, 5):
            await ws.send(renewal(f"secret-{number}"))
        await ws.send("behind")
        assert await within(ws.recv()) == "None: behind"
        assert running == ["secret-2"]
        go.set()
        await until(lambda: site.opened[0].request.bearer == "secret-5")
        assert running == ["secret-2", "secret-5"]
        await ws.close()


@pytest.mark.parametrize("end", ["close", "abort", "drain", "stop"])
async def test_no_task_is_left_when_the_connection_ends_meanwhile(end):
    site = Site(ASYNCIO, lambda request: None if request.bearer == "secret-1" else asyncio.Event().wait())
    async with nothing_left_behind():
        async with site.server.serving(grace=0 if end == "stop" else 30):
            ws = await endwell.connect(site.url(), subprotocols=pair())
            assert await within(ws.recv()) == GREETING
            await ws.send(renewal("secret-2"))
            await until(lambda: len(site.requests) == 2)
            if end == "close":
                await ws.close()
            elif end == "abort":
                ws.abort()
            elif end == "drain":
                await within(site.server.drain())
            if end in ("close", "abort"):
                await until(lambda: not site.server._dispatcher.tasks)
        await within(ws.closed)


@pytest.mark.virtual_clock
async def test_a_decision_has_open_timeout(caplog):
    site = Site(
        ASYNCIO, lambda request: None if request.bearer == "secret-1" else asyncio.sleep(60), open_timeout=10
    )
    async with site.server.serving():
        ws = await endwell.connect(site.url(), subprotocols=pair())
        began = asyncio.get_running_loop().time()
        await ws.send(renewal("secret-2"))
        assert (await ws.closed).received == Close(1011)
        assert 10 <= asyncio.get_running_loop().time() - began < 30
    assert "TimeoutError" in caplog.text


async def test_without_an_accept_function_the_server_takes_no_new_tokens(face):
    server, got = endwell.Server(), []

    async def handler(ws):
        await ws.send(f"{ws.request.bearer}")
        async for message in ws:
            got.append(message)
            await ws.send("next")

    server.websocket("/")(face.handler(handler))
    async with server.serving():
        ws = await endwell.connect(f"ws://127.0.0.1:{server.port}/", subprotocols=pair())
        assert ws.response.headers["Sec-WebSocket-Protocol"] == "endwell.bearer"
        assert await within(ws.recv()) == "secret-1"
        await ws.send(renewal("x"))
        assert await within(ws.recv()) == "next"
        await ws.close()
    assert got == [renewal("x")]


@pytest.mark.parametrize("size", [8199, 8200])
async def test_a_route_takes_new_tokens_only_if_the_longest_one_fits(size):
    site = Site(ASYNCIO, max_size=size)
    async with site.server.serving():
        ws = await endwell.connect(site.url(), subprotocols=pair())
        if size == 8200:
            assert await within(ws.recv()) == GREETING
            await ws.send(renewal("x" * 8192))
            await until(lambda: site.tokens == ["secret-1", "x" * 8192])
        await ws.send("hello")
        assert await within(ws.recv()) == "ada: hello"
        await ws.close()


async def test_the_request_of_a_new_token_has_the_address_that_a_proxy_says(face):
    site = Site(face, proxy_headers=["127.0.0.1"])
    async with site.server.serving():
        fields = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
        ws = await endwell.connect(site.url(), subprotocols=pair(), additional_headers=fields)
        await ws.send(renewal("secret-2"))
        await until(lambda: site.tokens == ["secret-1", "secret-2"])
        for request in site.requests:
            assert request.remote_address[0] == "192.0.2.7"
            assert request.secure
        await ws.close()


async def test_the_wire_log_hides_tokens(face, caplog):
    site = Site(face)
    for how in ({}, {"compression": None}):
        with caplog.at_level(logging.DEBUG, "endwell"):
            async with site.server.serving():
                ws = await endwell.connect(
                    site.url(),
                    subprotocols=pair()[:1],
                    additional_headers={"Authorization": "Bearer secret-1"},
                    **how,
                )
                assert await within(ws.recv()) == GREETING
                ws._core.say(renewal("secret-2" * 20))
                ws._stream.settle()
                await ws.send("hello " * 20)
                assert await within(ws.recv())
                await ws.close()
        assert "bearer '..." in caplog.text
        for hidden in ("secret-1", "secret-2", b"secret-2".hex()):
            assert hidden not in caplog.text
        caplog.clear()


async def test_threads_of_a_blocking_accept_function_do_not_pile_up():
    left, calls = threading.Event(), []

    def decide(request):
        if request.bearer != "secret-1":
            calls.append(request.bearer)
            left.wait(30)

    site = Site(BLOCKING, decide)
    async with site.server.serving():
        ws = await endwell.connect(site.url(), subprotocols=pair())
        for number in range(2, 7):
            await ws.send(renewal(f"secret-{number}"))
        await ws.send("behind")
        assert await within(ws.recv()) == GREETING
        assert await within(ws.recv()) == "None: behind"
        await until(lambda: calls)
        assert len(calls) == 1
        left.set()
        await until(lambda: site.opened[0].request.bearer == "secret-6")
        await ws.close()
