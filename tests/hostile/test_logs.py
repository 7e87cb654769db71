"""Every log line that a peer can cause, with a peer that tries to forge another one.

CWE-117: control characters in the input of a peer end a line, or control the terminal that shows it.
"""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import socket
import zlib
from pathlib import Path

import pytest

import endwell
from endwell import ConnectionClosed, HandshakeError, Limit, RetryPolicy, Server, connect, reconnecting
from endwell.cli.lines import AccessLog, Lines
from endwell.logs import JsonFormatter
from tests.pair import until, within
from tests.raw import RawPeer, RawServer, switching_protocols
from tests.wire.peer import TEXT

#: An end of line, the forged line, a colour, and a change of the text direction.
FORGED = "\r\nCRITICAL forged \x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}\N{LINE SEPARATOR}\0"
#: The same, encoded in a path.
ENCODED = "%0D%0ACRITICAL%20forged%1B"

#: The known lines, by their format.
BY_A_PEER = {
    "%s on %r: %s",
    '%s - "%s %s HTTP/%s" %d',
    "#%d %s %s",
    "%s %s",
    "%s %s: %s",
    "%s; reconnecting in %.1f s",
    "%s; reconnecting in %.1f s (further failed attempts are logged at INFO)",
    "%s; not reconnecting: %s",
    "answering %r for %s failed",
    "callback %r failed",
    "dropping messages of %s on %r: they are above its limit",
    "handler %s of %r for %s failed",
    "on_close callback %r failed",
    "on_drain callback %r failed",
    "on_open callback %r failed",
    "on_refused callback %r failed",
    "reading from %r failed",
    "refused %s from %s with %d: %s",
}
#: The lines of a server whose handlers and callbacks fail.
HERE = {
    text
    for text in BY_A_PEER
    # The lines of a client, of a socket that fails, and of the frames.
    if not any(part in text for part in ("reconnecting", "reading", "#%d")) and text[:5] != "%s %s"
}
#: The lines that contain only texts of the operating system or the application.
BY_NOBODY = {
    "tasks that ignore their cancellation and are abandoned: %s",
    "threads of asyncio.to_thread that still run and are abandoned: %d",
    "%r failed",
    "endings cannot be written to %r: %s",  # the path of the option recorder, and an error of the system
    "the recorder %r failed",
    "writing an ending to %r failed",
    "%s",  # the result of a drain: numbers, and names of handlers
    "%s before all workers were ready: the program exits",
    "%s before all new workers were ready: the restart failed, the old workers go on",
    "a claim of sessions is not valid",  # from another process of the application
    "asking for the places of connections failed",
    "renewing the number of connections of this process failed",
    "sending the claims of sessions failed",
    "%s (%d) is no longer reached; refused meanwhile: %d",
    "%s (%d) is reached: more are refused with 503",
    "%s did not %s in time: it is killed",
    "%s starts",
    "%s for %s failed: %s",  # what the bus says
    "handler %s of %r for %s failed: %s",
    "answering %r for %s failed: %s",
    "ASGI application failed: %s",
    "%s for %s failed",  # the accept function of a pattern, and an address
    "the token of an open connection was not renewed: %s",  # an exception of the application's function
    "%s %s: a new worker starts",
    "the dashboard closes the connection %s with %s, asked by %s",  # a number, a Close, and an address
    "the dashboard asks the supervisor to %s, asked by %s",
    "authorize of the dashboard failed, so the client is refused",
    "the feed of the dashboard for %s failed",  # an address
    "a message between dashboards is not valid",  # from another process of the application
    "answering the dashboard of another process failed",
    "a dashboard gets no answer of this process: %s",  # what the bus says
    "no other process keeps the endings of this process: %s",  # what the bus says
    "%s %s; its successor starts already",
    "%s %s while it was stopping",
    "%s%s; a new worker starts %s",
    "%s took longer than open_timeout (%s s): the answer is 503",  # the pattern of a route, the name of a function
    "%s before it was ready: waiting for a change of its files",
    "changed: %s%s",  # names of files of the application
    "changes of files are not noticed any more: %s",
    "cannot accept connections for now: %s",
    "cannot notify systemd of %s: %s",
    "closing the iterable of a response failed",
    (
        "endwell runs as plain Python, and each message costs more CPU time, because it could not be compiled "
        "when it was installed: %s (ENDWELL_PURE=1 in the environment omits this warning)"
    ),
    "listening on %s",
    "telemetry failed (further failures are not logged)",  # an exception of a processor or a propagator
    "the drain waits at most %.1f s for these handlers: %s",
    "on_stop callback %r failed",
    "on_stop callback %r still runs after %.1f s: %s",
    "restarting: new workers start",
    "restarting: the new workers are ready, the old ones drain",
    "the event loop is blocked: the process exits; these are the stacks of its threads:",
    "this process has lost %s revocations of other processes",
    "shed: %d closed in %.1f s",
    "shed: %d of %s will close",
    "stopping: %s",
    "a worker has not read %d bytes: it gets no publications until it has",
    "a process has sent a frame that is not valid",
    "a message in the channel %r is not valid",  # from another program of the bus
    "a message in the subject %r is not valid",
    "a message of %d bytes is not sent: NATS takes %d (max_payload)",
    "a user does not get what is published for it: %s",
    "nothing is sent to %r, which is no subject",
    "a worker has sent a frame of kind %d that is not valid",
    "comparing the positions of the rooms failed",
    "connected to %s again",
    "reading what the room %r has missed failed",
    "renewing the presence of this process failed",
    "no connection to %s: %s",  # an error of the client's package or of the server
    # The name may come from a peer; %r escapes it.
    "the room %r has lost %s publications for this process",
    "Exception in the lifespan of the ASGI application",
    "the application could not shut down: %s",
    "the application does not support the lifespan protocol",
    "the application has no lifespan: it %s at its startup",
    "the event loop was stalled for %.1f s",
    "the drain report of %s is of another version: %r",
    "telling the leader what this process has failed",
    "telling the other processes that this one is alive failed",
    "the supervisor has exited: this worker drains",
    "the supervisor has not answered for %g s",
    "this machine slept for %.1f s",
    "two processes have numbered the publications of rooms: all rooms have a new epoch",
    "workers exited: %d; %s",
}
#: Those of an ASGI application: tests/asgi/test_uvicorn.py forges them.
OF_UVICORN = {
    '%s - "WebSocket %s" %s',
    "ASGI callable returned without %s response.",
    "ASGI callable returned without completing handshake.",
    "ASGI callable should return None, but returned %r.",
    "Exception in ASGI application",
    "Exception in ASGI application at its shutdown",
    "Exception in the key function of a rate limit",
    "Invalid WebSocket request: %s",
}


METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def texts():
    """The format of every line that the package logs."""
    for path in Path(endwell.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
            name, _, method = called.rpartition(".")
            if (name.endswith("logger") and method in METHODS) or called == "self._lines.add":
                constants = [each.value for each in call.args if isinstance(each, ast.Constant)]
                # Lines.add() passes on the texts of its callers.
                assert constants or path.name == "lines.py"
                yield from constants[:1]


def test_every_log_line_is_listed_here():
    assert set(texts()) == BY_A_PEER | BY_NOBODY | OF_UVICORN


@pytest.fixture
def written(caplog):
    """The log as in a file, with the format of each line; nothing in it is forged."""
    lines = {}
    yield lines
    for record in caplog.records:
        shown = logging.Formatter("%(levelname)s %(message)s").format(record)
        for line in shown.split("\n"):
            assert line.isprintable(), repr(line)
            assert not line.startswith("CRITICAL")
        lines.setdefault(record.msg, []).append(shown)
        written = JsonFormatter().format(record)
        assert written.isascii()
        assert written.isprintable(), repr(written)
        assert json.loads(written)["level"] == record.levelname


async def closed_by_a_forger():
    """The exception of a connection that its peer closed with a forged reason."""
    with RawServer() as listening:
        connecting = asyncio.ensure_future(opened(listening.uri))
        with await listening.accept() as peer:
            ws = await within(connecting)
            await peer.close(1011, FORGED)
            peer.fin()
            with pytest.raises(ConnectionClosed) as raised:
                await within(ws.recv())
            return raised.value


async def opened(uri, **options):
    return await connect(uri, ping_interval=None, **options)


async def test_every_text_of_a_peer_is_escaped_in_the_log(written, caplog):
    for name in ("access", "endings", "serve", "server"):
        caplog.set_level(logging.INFO, f"endwell.{name}")
    server = Server(ping_interval=None)
    exception = await closed_by_a_forger()

    def fail(*_):
        raise exception

    @server.websocket("/handler/{name}")
    async def handler(ws, name):
        ws.on_close(fail)
        fail()

    @server.websocket("/thread/{name}")
    def thread(ws, name):
        ws.on_close(fail)
        fail()

    @server.get("/page/{name}")
    def page(request, name):
        fail()

    @server.websocket("/key/{name}")
    async def key(ws, name):
        server.sessions.join(name, ws)

    @server.websocket("/close/{name}")
    async def close(ws, name):
        await ws.closed

    server.on_open(fail)
    server.on_close(fail)
    lines = Lines(logging.StreamHandler())
    server._answer_callbacks.append(AccessLog(lines).answered)
    server.on_drain(fail)
    server.on_refused(fail)
    server.sessions.joined(fail)

    @server.websocket("/limited/{name}", limits=Limit(messages=1, excess="drop"))
    async def limited(ws, name):
        await ws.wait_closed()

    async with server.serving(grace=1):
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request(f"/limited/{ENCODED}?token=secret"))
            await peer.read_head()
            for _ in range(3):
                await peer.frame(TEXT, b"secret")
            await peer.close(1000)
            await peer.read_to_the_end()
            peer.fin()
        for kind in ("handler", "thread", "key"):
            with await RawPeer.connect_tcp(server.port) as peer:
                await peer.write(peer.request(f"/{kind}/{ENCODED}?token=secret"))
                await peer.read_head()
                await peer.read_to_the_end(answer=True)
                peer.fin()
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request(f"/close/{ENCODED}?token=secret"))
            await peer.read_head()
            await peer.close(1011, FORGED)
            await peer.read_to_the_end()
            peer.fin()
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(
                f"GET /page/{ENCODED}?token=secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            )
            head = await peer.read_head()
            assert head.startswith("HTTP/1.1 500 ")
            assert "forged" not in head
            peer.fin()
        with await RawPeer.connect_tcp(server.port) as peer:
            request = peer.request(f"/nowhere/{ENCODED}")
            await peer.write(request[:-2] + b"Origin: http://forged\x85\r\n\r\n")
            assert (await peer.read_head()).startswith("HTTP/1.1 404 ")
            peer.fin()
    await until(lambda: {record.msg for record in caplog.records} >= HERE)
    for record in caplog.records:
        if record.msg == "%s":
            continue  # the result of the drain
        # It is logged, in a harmless form.
        assert "forged" in logging.Formatter().format(record)
        # The query of a page is often a token.
        assert "secret" not in logging.Formatter().format(record)
        if record.exc_info is None:  # an exception of the application may have anything
            assert "secret" not in JsonFormatter().format(record)


async def test_the_name_of_a_peers_socket_is_escaped_in_the_log(written, caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(zlib, "decompressobj", _no_memory)
    shown = []
    server = Server(ping_interval=None)

    @server.websocket("/")
    async def echo(ws):
        shown.append(repr(ws))
        async for _ in ws:
            pass
        shown.append(repr(ws))

    path = str(tmp_path / "server")
    async with server.serving(unix_path=path, grace=1):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "forged\r\n\x1b[31m"))
        sock.connect(path)
        with RawPeer(sock, None, server=False) as peer:
            extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
            await peer.write(peer.request()[:-2] + extension)
            await peer.read_head()
            await peer.frame(TEXT, b"\xf2H\xcd\xc9\xc9\x07\x00", rsv=4)
            await until(lambda: len(shown) == 2)
    assert [record.msg for record in caplog.records] == ["reading from %r failed"]
    for text in (*shown, caplog.records[0].getMessage()):
        assert "forged" in text
        assert text.isprintable()


def _no_memory(wbits):
    raise MemoryError


@pytest.mark.parametrize(
    ("logger", "forged"),
    [
        ("endwell.client", {"%s; reconnecting in %.1f s", "%s; not reconnecting: %s"}),
        # Then the sentence is in the record of the ending, and only there.
        ("endwell", {"%s on %r: %s"}),
    ],
)
async def test_texts_of_a_server_are_escaped_in_the_log_of_reconnecting(logger, forged, written, caplog):
    caplog.set_level(logging.INFO, logger)
    with RawServer() as listening:

        async def serve():
            for code in (1012, 1000):
                with await listening.accept() as peer:
                    await peer.close(code, FORGED)
                    peer.fin()
                    await peer.read_to_the_end()

        serving = asyncio.ensure_future(serve())
        policy = RetryPolicy(base=0.01)
        async for ws in reconnecting(listening.uri, policy=policy, ping_interval=None):
            assert await within(ws.read()) is None
        await within(serving)
    assert [record.msg for record in caplog.records if record.name == "endwell.client"] == [
        "%s; reconnecting in %.1f s",
        "%s; not reconnecting: %s",
    ]
    assert {record.msg for record in caplog.records if "forged" in record.getMessage()} == forged


WRONG = {
    "a subprotocol": b"Sec-WebSocket-Protocol: forged\x1b[31m",
    "an extension": b"Sec-WebSocket-Extensions: forged\x1b[31m",
    "a parameter": b'Sec-WebSocket-Extensions: permessage-deflate; forged="\x1b[31m"',
    "a field": b"forged\x1b[31m: x",
}


@pytest.mark.parametrize("name", WRONG)
async def test_texts_of_a_server_are_escaped_in_errors_of_a_client(name):
    with RawServer() as listening:
        connecting = asyncio.ensure_future(opened(listening.uri, subprotocols=["chat"]))
        with await listening.accept_tcp() as peer:
            head = switching_protocols(await peer.read_head())
            await peer.write(head[:-2] + WRONG[name] + b"\r\n\r\n")
            with pytest.raises(HandshakeError) as raised:
                await within(connecting)
    for text in (
        str(raised.value),
        repr(raised.value),
        str(raised.value.ending),
        str(raised.value.__cause__),
    ):
        assert text.isprintable()
        assert len(text) < 300


async def test_an_ending_with_a_forged_line_is_one_line():
    exception = await closed_by_a_forger()
    assert exception.ending.reason == FORGED  # the application has it unchanged
    for text in (str(exception), repr(exception.ending), exception.ending.as_dict()["text"]):
        assert "forged" in text
        assert text.isprintable()
