"""The option ``token`` of a client: how it is sent, when it is renewed, and what follows when it is refused."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

import endwell
import endwell.sync
from endwell import Accept, Cause, Close, Response, RetryPolicy, StopReason, Token
from endwell.aio import authorization
from endwell.aio.syscalls import monotonic
from endwell.aio.websocket import begin_close
from endwell.client import renewing
from tests.pair import nothing_left_behind, until, within
from tests.raw import RawServer, switching_protocols
from tests.served import QUICK, SLOW, refusal, serving

EXPIRED = Close(3000, "authorization expired: fetch a new token; retry 0-1s")


def now():
    """A wall clock that goes with the clock of the loop, which may be virtual."""
    return 1e9 + monotonic()


@pytest.fixture(autouse=True)
def wall_clock(monkeypatch):
    monkeypatch.setattr(authorization, "time", SimpleNamespace(time=now))


def at(seconds):
    return datetime.fromtimestamp(now() + seconds, UTC)


class Tokens:
    """Tokens of a life of ``seconds``, numbered; and a server that authorizes for the same time."""

    def __init__(self, seconds=100.0, **options):
        self.seconds = seconds
        self.made, self.seen, self.times, self.opened, self.endings = 0, [], [], [], []
        self.server = endwell.Server(**options)
        self.server.on_close(lambda _ws, ending: self.endings.append(ending))

        @self.server.websocket("/", accept=self.accept)
        async def handler(ws):
            self.opened.append(ws)
            async for message in ws:
                await ws.send(f"{ws.request.bearer}: {message}")

    async def accept(self, request):
        self.seen.append(request.bearer)
        self.times.append(asyncio.get_running_loop().time())
        return Accept(subject="ada", until=at(self.seconds))

    async def token(self):
        self.made += 1
        return Token(f"secret-{self.made}", until=at(self.seconds))

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.server.port}/"


# --- how it is sent ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["str", "function", "function of a Token", "Token"])
async def test_the_token_is_sent_as_authorization_in_each_attempt(kind, face):
    numbers = iter(range(1, 9))

    async def function():
        token = f"secret-{next(numbers)}"
        return Token(token) if "Token" in kind else token

    token = {"str": "secret-1", "Token": Token("secret-1")}.get(kind) or face.function(function)
    async with serving(refusal(503), Close(1012)) as served:
        async for ws in face.reconnecting(served.url, token=token, policy=QUICK):
            if len(served.opened) == 2:
                break
            await ws.wait_closed()
    sent = [request.headers["Authorization"] for request in served.requests]
    assert sent == [f"Bearer secret-{number if 'function' in kind else 1}" for number in (1, 2, 3)]
    # Only a token whose end is known can be renewed.
    assert not any("Sec-WebSocket-Protocol" in request.headers for request in served.requests)


async def test_a_server_that_knows_nothing_of_it_is_fine(face, transport):
    async def token():
        return Token("secret-1", until=at(1000))

    with RawServer(transport.server) as listening:
        connecting = asyncio.ensure_future(
            face.connect(
                listening.uri,
                ssl=transport.client,
                token=face.function(token),
                subprotocols=["chat"],
                compression=None,
            )
        )
        with await listening.accept_tcp() as peer:
            await peer.tls_handshake()
            head = await peer.read_head()
            await peer.write(switching_protocols(head))
            ws = await within(connecting)
            assert "\r\nAuthorization: Bearer secret-1" in head
            assert "\r\nSec-WebSocket-Protocol: chat, endwell.bearer\r\n" in head
            assert ws.subprotocol is None
            ws.abort()


async def test_the_subprotocol_of_the_application_is_selected(face):
    tokens = Tokens(subprotocols=["chat"])
    async with nothing_left_behind(), tokens.server.serving():
        for offered, chosen in ((["chat"], "chat"), ([], None)):
            ws = await face.connect(tokens.url, token=face.function(tokens.token), subprotocols=offered)
            assert ws.subprotocol == chosen
            await ws.send("hello")
            assert await within(ws.recv()) == f"secret-{tokens.made}: hello"
            ending = await ws.close()
            assert (ending.messages_in, ending.messages_out) == (1, 1)


@pytest.mark.parametrize("static", [True, False])
async def test_another_authorization_is_refused_with_both_names(static, face):
    async def token():
        return "secret-1"

    fields, uri = {"Authorization": "Basic YTpi"}, "ws://user:password@127.0.0.1:1/"
    for how, text in (
        ({"additional_headers": fields}, "token and the header Authorization in additional_headers"),
        ({"uri": uri}, "token and the user name in uri"),
    ):
        given = how if static else {name: (lambda value=value: value) for name, value in how.items()}
        arguments = {
            "uri": "ws://127.0.0.1:1/",
            **given,
            "token": "secret-1" if static else face.function(token),
        }
        with pytest.raises(ValueError if static else endwell.HandshakeError, match=text) as caught:
            await within(face.connect(**arguments))
        assert "secret-1" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["", "two words", "é", "x" * 8193, 5, None, b"x"], ids=repr)
async def test_a_wrong_token_is_an_error_that_does_not_show_it(wrong, face):
    async def token():
        return wrong

    with pytest.raises(
        endwell.HandshakeError, match=r"the function token failed: (Value|Type)Error"
    ) as caught:
        await within(face.connect("ws://127.0.0.1:1/", token=face.function(token)))
    if isinstance(wrong, str) and wrong:
        assert wrong not in str(caught.value)
    if wrong is not None:
        with pytest.raises((TypeError, ValueError), match=r"a token must be|token must be a str"):
            endwell.connect("ws://127.0.0.1:1/", token=wrong)


def test_a_token_hides_its_value():
    token = Token("secret-1", until=datetime(2030, 1, 1, tzinfo=UTC))
    assert "secret-1" not in repr(token) + str(token)
    assert "2030" in repr(token)
    with pytest.raises(ValueError, match="until must have a time zone"):
        Token("x", until=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(TypeError, match="token must not be a coroutine function"):
        endwell.sync.connect("ws://127.0.0.1:1/", token=Tokens().token)


async def test_a_redirect_to_another_origin_gets_no_token(face):
    tokens, far = Tokens(), Tokens()
    here = Response(302, {"Location": "/"})

    @tokens.server.process_request
    async def redirect(request):
        asked.append(request)
        return [here, Response(302, {"Location": far.url}), None][len(asked) - 1]

    @far.server.process_request
    async def look(request):
        asked.append(request)

    asked = []
    async with tokens.server.serving(), far.server.serving():
        ws = await face.connect(tokens.url, token=face.function(tokens.token))
        await ws.send("hello")
        assert await within(ws.recv()) == "None: hello"
        await ws.close()
    assert [request.bearer for request in asked] == ["secret-1", "secret-1", None]
    assert "Sec-WebSocket-Protocol" not in asked[2].headers
    assert tokens.made == 1


# --- when it is renewed ------------------------------------------------------------------------------------


@pytest.mark.virtual_clock
@pytest.mark.parametrize("client", ["connect", "reconnecting"])
async def test_it_is_renewed_at_80_percent_of_its_life(client):
    tokens = Tokens(seconds=40.0, ping_interval=None)
    async with nothing_left_behind(), tokens.server.serving():
        how = {"token": tokens.token, "ping_interval": None}
        if client == "connect":
            ws = await endwell.connect(tokens.url, **how)
        else:
            ws = await anext(turns := aiter(endwell.reconnecting(tokens.url, **how)))
        await asyncio.sleep(100)
        await ws.send("hello")
        assert await ws.recv() == "secret-4: hello"
        ending = await ws.close()
        assert (ending.messages_in, ending.messages_out) == (1, 1)
        if client == "reconnecting":
            with pytest.raises(StopAsyncIteration):
                await anext(turns)
    assert tokens.seen == [f"secret-{number}" for number in range(1, 5)]
    began = tokens.times[0]
    assert [at - began for at in tokens.times] == pytest.approx([32 * number for number in range(4)], abs=0.5)


@pytest.mark.virtual_clock
async def test_a_function_that_fails_is_called_again_at_80_percent_of_the_rest(caplog):
    tokens, calls = Tokens(seconds=40.0, ping_interval=None), []

    async def token():
        calls.append(asyncio.get_running_loop().time())
        if len(calls) == 1:
            return await tokens.token()
        raise OSError("no network")

    async with nothing_left_behind(), tokens.server.serving():
        ws = await endwell.connect(tokens.url, token=token, ping_interval=None)
        assert (await ws.wait_closed()).received == EXPIRED
    # 32, 32 + 0.8 * 8, ...; and no more than one call per second
    assert [at - calls[0] for at in calls[1:4]] == pytest.approx([32, 38.4, 39.68], abs=0.1)
    assert len(calls) <= 5
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings[0] == (
        "the token of an open connection was not renewed: the function token failed: OSError('no network')"
    )
    assert len(warnings) == len(calls) - 1


@pytest.mark.virtual_clock
async def test_a_message_of_another_user_does_not_make_a_client_send_its_token():
    """A server that takes no new tokens passes on what its users write, also to the one who has the token."""
    tokens, members = Tokens(seconds=40.0), []
    server = endwell.Server(ping_interval=None)

    @server.websocket("/chat")
    async def chat(ws):
        members.append(ws)
        async for message in ws:
            for member in members:
                await member.send(message)

    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}/chat"
        victim = await endwell.connect(url, token=tokens.token, ping_interval=None)
        mallory = await endwell.connect(url, ping_interval=None)
        for forged in ("\x1abearer", "\x1abearer ", "\x1abearer secret-2"):
            await mallory.send(forged)
            assert await victim.recv() == await mallory.recv() == forged
        await asyncio.sleep(100)
        assert tokens.made == 1
        await mallory.send("that was all")
        assert await mallory.recv() == "that was all"
        await victim.close()
        await mallory.close()


@pytest.mark.virtual_clock
@pytest.mark.parametrize("size", [8199, 8200])
async def test_a_client_with_a_small_max_size_is_not_greeted(size):
    tokens = Tokens(seconds=40.0, ping_interval=None)
    async with nothing_left_behind(), tokens.server.serving():
        ws = await endwell.connect(tokens.url, token=tokens.token, max_size=size, ping_interval=None)
        await asyncio.sleep(35)
        assert tokens.made == (2 if size == 8200 else 1)
        await ws.close()


@pytest.mark.virtual_clock
async def test_what_a_library_raises_past_exception_does_not_end_the_renewal(caplog):
    """Such as the Cancelled of trio, or the outcome of pytest."""

    class Outcome(BaseException):
        pass

    tokens = Tokens(seconds=40.0, ping_interval=None)

    async def token():
        if tokens.made == 1:
            tokens.made += 1
            raise Outcome
        return await tokens.token()

    async with nothing_left_behind(), tokens.server.serving():
        ws = await endwell.connect(tokens.url, token=token, ping_interval=None)
        await asyncio.sleep(60)
        assert ws.is_open
        await ws.close()
    assert "was not renewed" in caplog.text
    assert tokens.seen == ["secret-1", "secret-3"]


@pytest.mark.virtual_clock
async def test_a_function_that_hangs_is_given_up_after_open_timeout(caplog):
    tokens = Tokens(seconds=40.0, ping_interval=None)

    async def token():
        if tokens.made == 1:
            tokens.made += 1
            await asyncio.sleep(1000)
        return await tokens.token()

    async with nothing_left_behind(), tokens.server.serving():
        ws = await endwell.connect(tokens.url, token=token, ping_interval=None, open_timeout=5)
        await asyncio.sleep(60)
        assert ws.is_open
        await ws.close()
    assert "the function token has not returned within 5 s (open_timeout)" in caplog.text
    assert tokens.seen == ["secret-1", "secret-3"]


@pytest.mark.virtual_clock
async def test_an_unchanged_token_is_not_sent_again():
    tokens, calls = Tokens(seconds=40.0, ping_interval=None), []

    async def token():
        calls.append(asyncio.get_running_loop().time())
        rest = 40 - (calls[-1] - calls[0])
        return Token("secret-1", until=at(rest)) if len(calls) < 4 else Token("secret-2", until=at(40))

    async with tokens.server.serving():
        ws = await endwell.connect(tokens.url, token=token, ping_interval=None)
        await asyncio.sleep(60)
        assert ws.is_open
        await ws.close()
    assert tokens.seen == ["secret-1", "secret-2"]
    assert [at - calls[0] for at in calls] == pytest.approx([0, 32, 38.4, 39.68], abs=0.1)


@pytest.mark.virtual_clock
async def test_a_token_of_a_short_life_makes_no_busy_loop():
    tokens = Tokens(seconds=40.0, ping_interval=None)

    async def token():
        tokens.made += 1
        return Token(f"secret-{tokens.made}", until=at(1.5))

    async with tokens.server.serving():
        ws = await endwell.connect(tokens.url, token=token, ping_interval=None)
        await asyncio.sleep(30)
        assert ws.is_open
        await ws.close()
    assert 20 <= tokens.made <= 31


async def test_both_faces_renew_over_each_transport(face, transport, monkeypatch):
    # Each token lives for long and is renewed at once: a short life could end before the connection opens.
    monkeypatch.setattr(renewing, "MIN_INTERVAL", 0.01)
    monkeypatch.setattr(renewing, "SHARE", 0.0)
    tokens = Tokens(seconds=1000.0)
    scheme = "ws" if transport.client is None else "wss"
    async with nothing_left_behind(), tokens.server.serving(ssl=transport.server):
        url = f"{scheme}://127.0.0.1:{tokens.server.port}/"

        async def token():
            while len(tokens.seen) < tokens.made:  # of tokens that come together, only the newest counts
                await face.pause(0.001)
            tokens.made += 1
            return Token(f"secret-{tokens.made}", until=at(1000) if tokens.made < 3 else None)

        ws = await face.connect(url, ssl=transport.client, token=face.function(token))
        await until(lambda: tokens.opened[0].request.bearer == "secret-3")
        await ws.send("hello")
        assert await within(ws.recv()) == "secret-3: hello"
        ending = await ws.close()
        assert (ending.messages_in, ending.messages_out) == (1, 1)
    assert tokens.seen == ["secret-1", "secret-2", "secret-3"]


@pytest.mark.virtual_clock
@pytest.mark.parametrize("end", ["close", "cancel", "stop", "abort"])
async def test_the_end_of_the_connection_ends_the_renewal(end):
    tokens, started = Tokens(seconds=40.0, ping_interval=None), asyncio.Event()

    async def token():
        if tokens.made == 1:
            started.set()
            await asyncio.Event().wait()
        return await tokens.token()

    async with nothing_left_behind(), tokens.server.serving():
        client = endwell.reconnecting(tokens.url, token=token, ping_interval=None, open_timeout=None)

        async def run():
            async for ws in client:
                await ws.wait_closed()

        task = asyncio.ensure_future(run())
        await started.wait()
        if end == "cancel":
            task.cancel()
        elif end == "stop":
            client.stop()
        elif end == "abort":
            client._connecting._ws.abort()
        else:
            await client._connecting._ws.close()
        await asyncio.wait([task])


async def test_a_dropped_connection_is_closed():
    tokens = Tokens()
    async with nothing_left_behind(), tokens.server.serving():
        ws = await endwell.connect(tokens.url, token=tokens.token)
        await ws.send("hello")
        assert await within(ws.recv())
        del ws
        await until(lambda: tokens.endings)
    assert tokens.endings[0].received == Close(1000)


# --- when it is refused ------------------------------------------------------------------------------------


async def test_3000_is_followed_by_an_attempt_with_a_new_token(face):
    tokens, told = Tokens(), []
    waits = [EXPIRED, Close(3000, "unauthorized")]

    @tokens.server.on_open
    def close(ws):
        if waits:
            begin_close(ws, Cause.APP_CLOSED, 3000, waits.pop(0).reason)

    async with tokens.server.serving():
        client = face.reconnecting(
            tokens.url,
            token=face.function(tokens.token),
            policy=QUICK,
            on_ending=lambda *each: told.append(each),
        )
        async for ws in client:
            if tokens.made == 3:
                break
            await ws.wait_closed()
    assert tokens.seen == ["secret-1", "secret-2", "secret-3"]
    # The window of the advice, after the first ending.
    assert 0 <= told[0][1] <= 1
    assert QUICK.base <= told[1][1]


@pytest.mark.parametrize(
    "how",
    [
        {"token": "secret-1"},
        {},
        {"token": lambda: "secret-1", "policy": RetryPolicy(codes={3000: endwell.Retry.NEVER})},
    ],
    ids=["a str", "no token", "the policy says never"],
)
async def test_3000_ends_the_loop_without_a_function(how, face):
    async with serving(Close(3000, EXPIRED.reason)) as served:
        client = face.reconnecting(served.url, **{"policy": SLOW, **how})
        ws = await within(anext(turns := aiter(client)))
        await within(ws.wait_closed())
        with pytest.raises(endwell.ConnectionClosed, match="3000"):
            await within(anext(turns))
    assert client.state.reason is StopReason.REFUSED


@pytest.mark.virtual_clock
async def test_a_renewal_that_the_server_refuses_is_followed_by_a_new_connection():
    tokens = Tokens(seconds=40.0, ping_interval=None)

    async def accept(request):
        tokens.seen.append(request.bearer)
        return Response(401) if request.bearer == "secret-2" else None

    @tokens.server.websocket("/strict", accept=accept)
    async def handler(ws):
        await ws.wait_closed()

    async with tokens.server.serving():
        client = endwell.reconnecting(tokens.url + "strict", token=tokens.token, ping_interval=None)
        async for ws in client:
            if tokens.made == 3:
                break
            assert (await ws.wait_closed()).received == Close(3000, "token refused")
    assert tokens.seen == ["secret-1", "secret-2", "secret-3"]
    assert tokens.endings[0].cause is Cause.AUTH_REFUSED
