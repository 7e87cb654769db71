"""The events of an ASGI WebSocket: what the application may send and when, and what the client gets."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest

import endwell
from endwell import Close
from endwell.asgi import ClientDisconnected
from tests.pair import until, within
from tests.raw import RawPeer
from tests.wire.peer import BINARY, TEXT

from .serving import mounted, protocol, serving

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
CONNECT = {"type": "websocket.connect"}


class Recorder:
    """An application that keeps what its script returned or raised."""

    def __init__(self, script):
        self._script = script
        self.scope = None
        self.done = asyncio.Event()
        self.raised = None

    async def __call__(self, scope, receive, send):
        self.scope = scope
        try:
            return await self._script(scope, receive, send)
        except BaseException as exc:
            self.raised = exc
            raise
        finally:
            self.done.set()


async def answered(served, request=None):
    """The head and the body of the answer to a request, and the end of TCP."""
    with await served.reach() as peer:
        await peer.tls_handshake()
        await peer.write(request or peer.request("/a%2Fb?x=%20"))
        data = b""
        async with asyncio.timeout(30):
            while await peer.more():
                pass
        data = bytes(peer._received)
        head, _, body = data.partition(b"\r\n\r\n")
        return head.decode("latin-1"), body, peer.seen


def errors(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_close_before_the_acceptance_is_403_and_the_application_gets_a_disconnect(caplog):
    caplog.set_level(logging.INFO, "uvicorn.error")

    async def script(scope, receive, send):
        assert await receive() == CONNECT
        await send(CLOSE)
        assert await receive() == {"type": "websocket.disconnect", "code": 1006}
        with pytest.raises(RuntimeError):
            await receive()

    app = Recorder(script)
    async with serving(app) as served:
        head, body, _ = await answered(served)
        await app.done.wait()
    assert head.startswith("HTTP/1.1 403 ")
    assert "\r\nserver: uvicorn\r\n" in head
    assert body == b""
    assert app.raised is None
    assert not errors(caplog)
    assert any(record.getMessage().endswith('- "WebSocket /a/b?x=%20" 403') for record in caplog.records)


async def test_a_denial_response_has_the_applications_status_fields_and_whole_body():
    async def script(scope, receive, send):
        assert scope["extensions"]["websocket.http.response"] == {}
        await receive()
        headers = [(b"content-type", b"text/plain"), (b"x-why", b"no")]
        await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"tea", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"pot"})
        assert await receive() == {"type": "websocket.disconnect", "code": 1006}

    app = Recorder(script)
    async with serving(app) as served:
        head, body, _ = await answered(served)
        await app.done.wait()
    assert head.startswith("HTTP/1.1 418 ")
    assert "\r\nx-why: no\r\n" in head
    assert "\r\nContent-Length: 6" in head
    assert body == b"teapot"
    assert app.raised is None


def on_uvicorn(app, transport):
    return serving(app, transport=transport)


both = pytest.mark.parametrize("server", [on_uvicorn, mounted])
DENIAL = {"type": "websocket.http.response.start", "status": 418}


def part(octets, more=True):
    return {"type": "websocket.http.response.body", "body": octets, "more_body": more}


@both
async def test_a_denial_response_without_an_end_raises_before_it_fills_the_memory(server, transport, caplog):
    sent = []

    async def script(scope, receive, send):
        await send(DENIAL)
        try:
            while True:
                await send(part(bytes(2**16)))
                sent.append(2**16)
        finally:
            with pytest.raises(RuntimeError):
                await send(part(b"the end", more=False))

    app = Recorder(script)
    async with server(app, transport) as served:
        head, body, _ = await answered(served)
    assert sum(sent) == 2**20
    assert isinstance(app.raised, RuntimeError)
    assert head.startswith("HTTP/1.1 500 ")
    assert body == b"Internal Server Error"
    (record,) = errors(caplog)
    assert record.exc_info[1] is app.raised


@both
@pytest.mark.parametrize(
    "parts", [[b"x" * 2**20, b"y"], [b"x" * (2**20 + 1)], [*[b""] * 100, b"x"], [b""]], ids=len
)
async def test_a_denial_response_that_ends_is_sent_whole(server, parts, transport):
    async def script(scope, receive, send):
        await send(DENIAL)
        for octets in parts[:-1]:
            await send(part(octets))
        await send(part(parts[-1], more=False))

    async with server(Recorder(script), transport) as served:
        head, body, _ = await answered(served)
    assert head.startswith("HTTP/1.1 418 ")
    assert body == b"".join(parts)


@both
async def test_a_denial_response_to_a_client_that_is_gone_raises(server, transport):
    async def script(scope, receive, send):
        assert await receive() == CONNECT
        await send(DENIAL)
        await send(part(b"x"))
        assert await receive() == {"type": "websocket.disconnect", "code": 1006}
        await send(part(b"y"))

    app = Recorder(script)
    async with server(app, transport) as served:
        with await served.reach() as peer:
            await peer.tls_handshake()
            await peer.write(peer.request())
            await until(lambda: app.scope)
            peer.reset()
            await within(app.done.wait())
    assert isinstance(app.raised, ClientDisconnected)


OUT_OF_ORDER = {
    "send before accept": [{"type": "websocket.send", "text": "x"}],
    "an unknown event": [{"type": "websocket.ping"}],
    "body before start": [{"type": "websocket.http.response.body", "body": b""}],
    "status 99": [{"type": "websocket.http.response.start", "status": 99}],
    "a field that splits the response": [
        {"type": "websocket.http.response.start", "status": 200, "headers": [(b"x", b"a\r\nb: c")]}
    ],
    "a subprotocol that is not offered": [{**ACCEPT, "subprotocol": "chat"}],
    "a field of the handshake": [{**ACCEPT, "headers": [(b"Upgrade", b"h2c")]}],
    "a field that splits the 101": [{**ACCEPT, "headers": [(b"x", b"a\nb: c")]}],
}


@pytest.mark.parametrize("case", OUT_OF_ORDER)
async def test_a_wrong_event_before_the_answer_raises_at_the_call_and_the_client_gets_500(case, caplog):
    async def script(scope, receive, send):
        for event in OUT_OF_ORDER[case]:
            await send(event)

    app = Recorder(script)
    async with serving(app) as served:
        head, body, _ = await answered(served)
        await app.done.wait()
    assert isinstance(app.raised, RuntimeError | ValueError)
    assert head.startswith("HTTP/1.1 500 ")
    assert body == b"Internal Server Error"
    (record,) = errors(caplog)
    assert record.exc_info[1] is app.raised


WRONG_WHEN_OPEN = {
    "a second accept": ACCEPT,
    "a response": {"type": "websocket.http.response.start", "status": 200},
    "Close 1005": {**CLOSE, "code": 1005},
    "Close 1006": {**CLOSE, "code": 1006},
    "a reason of 124 bytes": {**CLOSE, "reason": "x" * 124},
    "neither text nor bytes": {"type": "websocket.send"},
}


@pytest.mark.parametrize("case", WRONG_WHEN_OPEN)
async def test_a_wrong_event_on_an_open_websocket_raises_at_the_call_and_sends_nothing(case):
    async def script(scope, receive, send):
        await send(ACCEPT)
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            await send(WRONG_WHEN_OPEN[case])
        await send({"type": "websocket.send", "bytes": b"still open"})
        await send(CLOSE)
        with pytest.raises(RuntimeError):
            await send({"type": "websocket.send", "text": "x"})

    app = Recorder(script)
    async with serving(app) as served:
        with await served.connect() as peer:
            seen = await peer.read_to_the_end(answer=True)
        await app.done.wait()
    assert app.raised is None
    assert [(frame.opcode, frame.payload) for frame in seen.frames] == [(BINARY, b"still open")]
    assert seen.close == Close(1000)


@pytest.mark.parametrize(
    "event", [CLOSE, {**CLOSE, "code": 4001, "reason": "bye"}, {**CLOSE, "reason": None}]
)
async def test_the_applications_close_is_a_closing_handshake_behind_its_messages(event):
    async def script(scope, receive, send):
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "last"})
        await send(event)
        told = await receive()
        assert told == {
            "type": "websocket.disconnect",
            "code": event.get("code", 1000),
            "reason": event.get("reason") or "",
        }

    app = Recorder(script)
    async with serving(app) as served:
        with await served.connect() as peer:
            seen = await peer.read_to_the_end(answer=True)
            peer.sock.close()
        await app.done.wait()
    assert app.raised is None
    assert seen.frames == [(TEXT, b"last")]
    assert seen.close == Close(event.get("code", 1000), event.get("reason") or "")


async def test_messages_before_the_end_are_received_first_and_the_disconnect_once():
    go = asyncio.Event()

    async def script(scope, receive, send):
        assert await receive() == CONNECT
        await send(ACCEPT)
        await go.wait()
        assert await receive() == {"type": "websocket.receive", "text": "a"}
        assert await receive() == {"type": "websocket.receive", "bytes": b"b"}
        assert await receive() == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}
        with pytest.raises(RuntimeError):
            await receive()
        with pytest.raises(ClientDisconnected) as raised:
            await send({"type": "websocket.send", "text": "x"})
        assert isinstance(raised.value, OSError)
        assert raised.value.ending is scope["extensions"]["endwell"]["ending"]()

    app = Recorder(script)
    async with serving(app) as served:
        with await served.connect() as peer:
            await peer.frame(TEXT, b"a")
            await peer.frame(BINARY, b"b")
            await peer.close(4001, "bye")
            await peer.until_acknowledged()
            go.set()
            await peer.read_to_the_end()
        await app.done.wait()
    assert app.raised is None


async def test_a_client_that_disconnects_before_the_acceptance_is_told(caplog):
    endings = []

    async def script(scope, receive, send):
        scope["extensions"]["endwell"]["on_close"](endings.append)
        assert await receive() == CONNECT
        assert await receive() == {"type": "websocket.disconnect", "code": 1006}
        with pytest.raises(ClientDisconnected):
            await send(ACCEPT)

    app = Recorder(script)
    async with serving(app) as served:
        with await served.reach() as peer:
            await peer.write(peer.request())
            await until(lambda: app.scope)
            peer.fin()
            await within(app.done.wait())
        await until(lambda: not served.connections and not served.server.server_state.tasks)
    assert app.raised is None
    assert len(endings) == 1
    assert not errors(caplog)


async def test_frames_that_come_before_the_acceptance_are_kept():
    go = asyncio.Event()
    large = bytes(200_000)

    async def script(scope, receive, send):
        assert await receive() == CONNECT
        await go.wait()
        await send(ACCEPT)
        assert await receive() == {"type": "websocket.receive", "text": "early"}
        assert await receive() == {"type": "websocket.receive", "bytes": large}

    app = Recorder(script)
    async with serving(app) as served:
        with await served.reach() as peer:
            await peer.write(peer.request())
            await until(lambda: app.scope)
            sending = asyncio.gather(peer.frame(TEXT, b"early"), peer.frame(BINARY, large))
            (connection,) = served.connections
            await until(lambda: connection._connection._exchange._early)
            go.set()
            await within(sending)
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
            await peer.read_to_the_end(answer=True)
        await app.done.wait()
    assert app.raised is None


async def test_an_application_that_returns_without_an_answer_is_a_fault_and_the_client_gets_500(caplog):
    async def script(scope, receive, send):
        pass

    async with serving(Recorder(script)) as served:
        head, _, _ = await answered(served)
    assert head.startswith("HTTP/1.1 500 ")
    (record,) = errors(caplog)
    assert "without completing handshake" in record.getMessage()


async def test_a_request_that_breaks_rfc_6455_never_reaches_the_application():
    async def script(scope, receive, send):
        raise AssertionError("the application was called")

    app = Recorder(script)
    async with serving(app) as served:
        for broken in (b"Sec-WebSocket-Key: short\r\n", b"Sec-WebSocket-Version: 8\r\n"):
            good = RawPeer.request(None)
            name = broken.split(b":")[0] + b":"
            lines = [line + b"\r\n" for line in good.split(b"\r\n")[:-2] if not line.startswith(name)]
            head, _, _ = await answered(served, b"".join(lines) + broken + b"\r\n")
            assert head.startswith(("HTTP/1.1 400 ", "HTTP/1.1 426 "))
        await until(lambda: not served.connections)
    assert app.scope is None


async def test_the_scope_is_that_of_the_specification():
    async def script(scope, receive, send):
        await send({**ACCEPT, "subprotocol": "b", "headers": [(b"set-cookie", b"a=1")]})

    app = Recorder(script)
    async with serving(app, root_path="/root") as served:
        with await served.reach() as peer:
            request = peer.request("/a%2Fb/%C3%A4?x=%20").replace(
                b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: a, b\r\nX-Name: abra\xc3\xa3o\r\n\r\n"
            )
            await peer.write(request)
            head = await peer.read_head()
            client = peer.sock.getsockname()
            await peer.read_to_the_end(answer=True)
    scope = app.scope
    assert scope["type"] == "websocket"
    assert scope["path"] == "/root/a/b/ä"
    assert scope["raw_path"] == b"/root/a%2Fb/%C3%A4"
    assert (scope["root_path"], scope["query_string"]) == ("/root", b"x=%20")
    assert (scope["scheme"], scope["http_version"]) == ("ws", "1.1")
    assert scope["client"] == client
    assert scope["server"] == ("127.0.0.1", served.port)
    assert scope["subprotocols"] == ["a", "b"]
    assert (b"x-name", "abraão".encode()) in scope["headers"]
    assert scope["asgi"]["version"] == "3.0"
    assert "Sec-WebSocket-Protocol: b\r\n" in head
    assert "\r\nset-cookie: a=1" in head
    assert head.lower().count("\r\ndate:") == 1


@pytest.mark.parametrize("server", [serving, mounted])
@pytest.mark.parametrize("others", ["", ", b"])
async def test_the_scope_has_no_token_in_its_subprotocols_and_headers(server, others):
    async def script(scope, receive, send):
        await receive()
        await send(ACCEPT)
        told.append(scope["extensions"]["endwell"]["bearer"]())

    app, told = Recorder(script), []
    async with server(app) as served:
        with await RawPeer.connect_tcp(served.port if server is serving else served.server.port) as peer:
            fields = f"\r\nSec-WebSocket-Protocol: endwell.bearer, bearer.c2VjcmV0{others}\r\n\r\n"
            await peer.write(peer.request().replace(b"\r\n\r\n", fields.encode()))
            head = await peer.read_head()
            await peer.read_to_the_end(answer=True)
    assert "\r\nSec-WebSocket-Protocol: endwell.bearer" in head
    assert app.scope["subprotocols"] == (["b"] if others else [])
    offered = [value for name, value in app.scope["headers"] if name == b"sec-websocket-protocol"]
    assert offered == ([b"b"] if others else [])
    assert "secret" not in repr(app.scope)
    assert "c2VjcmV0" not in repr(app.scope)
    assert told == ["secret"]


async def test_send_waits_while_the_client_reads_nothing_and_raises_when_it_is_gone():
    waiting = asyncio.Event()

    async def script(scope, receive, send):
        await send(ACCEPT)
        while True:
            asyncio.get_running_loop().call_later(0.5, waiting.set)
            await send({"type": "websocket.send", "bytes": bytes(2**15)})

    app = Recorder(script)
    async with serving(app, protocol(write_timeout=60)) as served:
        with await served.connect() as peer:
            await within(waiting.wait())
            assert not app.done.is_set()
            peer.reset()
            await within(app.done.wait())
    assert isinstance(app.raised, ClientDisconnected)


async def test_an_application_may_be_cancelled_when_its_connection_ends():
    async def script(scope, receive, send):
        await send(ACCEPT)
        await asyncio.Event().wait()

    app = Recorder(script)
    cls = type("Protocol", (protocol(),), {"cancel_on_end": True, "__slots__": ()})
    async with serving(app, cls) as served:
        with await served.connect() as peer:
            peer.fin()
            await within(app.done.wait())
    assert isinstance(app.raised, asyncio.CancelledError)


async def test_receive_can_be_cancelled_and_awaited_by_a_task():
    async def script(scope, receive, send):
        await receive()
        await send(ACCEPT)
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await send({"type": "websocket.send", "text": "go"})
        assert await asyncio.create_task(receive()) == {"type": "websocket.receive", "text": "x"}

    app = Recorder(script)
    async with serving(app) as served:
        with await served.connect() as peer:
            assert (await peer.read_frame()).payload == b"go"
            await peer.frame(TEXT, b"x")
            await peer.read_to_the_end(answer=True)
    assert app.raised is None


async def test_the_applications_subprotocol_replaces_that_of_the_options():
    async def script(scope, receive, send):
        await send({**ACCEPT, "subprotocol": "b"})

    async with serving(Recorder(script), protocol(subprotocols=["a"])) as served:
        with await served.reach() as peer:
            await peer.write(peer.request().replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"))
            head = await peer.read_head()
            await peer.read_to_the_end(answer=True)
    assert [line for line in head.split("\r\n") if "websocket-protocol" in line.lower()] == [
        "Sec-WebSocket-Protocol: b"
    ]


@pytest.mark.parametrize("host", ["uvicorn", "endwell"])
async def test_an_authorization_that_the_application_limits_ends_with_3000(host, transport):
    got = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        extension = scope["extensions"]["endwell"]
        extension["websocket"]().authorize(until=datetime.now(UTC) + timedelta(seconds=0.1), subject="ada")
        await send({"type": "websocket.send", "text": "in"})
        got.append(await receive())
        got.append(extension["ending"]().cause)

    served = mounted(app, transport) if host == "endwell" else serving(app, protocol(), transport)
    async with served as server:
        url = f"{'ws' if transport.client is None else 'wss'}://127.0.0.1:{server.port}/"
        async with endwell.connect(url, ssl=transport.client) as ws:
            assert await within(ws.recv()) == "in"
            received = (await within(ws.closed)).received
        await until(lambda: len(got) == 2)
    reason = "authorization expired: fetch a new token; retry 0-1s"
    assert received == Close(3000, reason)
    assert got == [
        {"type": "websocket.disconnect", "code": 3000, "reason": reason},
        endwell.Cause.AUTH_EXPIRED,
    ]


async def test_a_revocation_closes_the_connections_of_a_mounted_application(transport):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        scope["extensions"]["endwell"]["websocket"]().authorize(subject="ada")
        await send({"type": "websocket.send", "text": "in"})
        assert (await receive())["code"] == 3003

    async with mounted(app, transport) as served:
        url = f"{'ws' if transport.client is None else 'wss'}://127.0.0.1:{served.port}/"
        async with endwell.connect(url, ssl=transport.client) as ws:
            assert await within(ws.recv()) == "in"
            assert await served.server.revoke("ada") == 1
            assert (await within(ws.closed)).received == Close(3003, "authorization revoked")
