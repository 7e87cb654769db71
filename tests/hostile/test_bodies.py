"""Clients that attack the server with the body of a request, or by not reading a response."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Server
from tests.pair import nothing_left_behind, until
from tests.raw import BOUND, RawPeer

CHUNKED = b"Transfer-Encoding: chunked\r\n"


def post(*fields, body=b"", version=b"1.1", method=b"POST"):
    return b"%b / HTTP/%b\r\nHost: localhost\r\n%b\r\n%b" % (method, version, b"".join(fields), body)


def serving(**options):
    """A server whose page reads the body, in each kind of handler, and what its observer was told."""
    server, told = Server(**options), []
    server.on_refused(lambda request, status, reason: told.append(status))

    @server.route("/", methods=["GET", "POST"])
    async def handler(request):
        return await request.body()

    @server.route("/plain", methods=["POST"])
    def plain(request):
        return request.body()

    return server, told


async def answer(server, transport, request, bytewise=False):
    """All that the server says until it ends TCP."""
    with await RawPeer.connect_tcp(server.port, transport.client, bytewise=bytewise) as peer:
        await peer.tls_handshake()
        await peer.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        async with asyncio.timeout(BOUND):
            while await peer.more():
                pass
        return bytes(peer._received)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(b"Content-Length: 5\r\n", CHUNKED, body=b"0\r\n\r\n"), 400),
        (post(CHUNKED, b"Content-Length: 5\r\n", body=b"0\r\n\r\n"), 400),
        (post(b"Content-Length: 5\r\n", b"Content-Length: 6\r\n", body=b"hello!"), 400),
        (post(b"Content-Length: 5, 5\r\n", body=b"hello"), 400),
        (post(b"Content-Length: +5\r\n", body=b"hello"), 400),
        (post(b"Content-Length : 5\r\n", body=b"hello"), 400),
        (post(b"Transfer-Encoding: xchunked\r\n", body=b"0\r\n\r\n"), 400),
        (post(b"Transfer-Encoding: chunked, identity\r\n", body=b"0\r\n\r\n"), 400),
        (post(b"Transfer-Encoding:\x0bchunked\r\n", body=b"0\r\n\r\n"), 400),
        (post(b"Transfer-Encoding: gzip, chunked\r\n", body=b"0\r\n\r\n"), 501),
        (post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"), 400),
        (post(CHUNKED, version=b"1.0", body=b"0\r\n\r\n"), 400),
        (post(version=b"1.0"), 411),
        (post(CHUNKED, body=b"5\nhello\r\n0\r\n\r\n"), 400),
        (post(CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
        (post(CHUNKED, body=b"5\r\nhello!\r\n0\r\n\r\n"), 400),
        (post(CHUNKED, body=b"ffffffffffffffffff\r\n"), 400),
        (post(CHUNKED, body=b"5;" + b"x" * 1000), 400),
        (post(CHUNKED, body=b"0\r\n" + b"X: y\r\n" * 5000), 400),
        (post(CHUNKED, body=b"ffffffffffffffff\r\n"), 413),
        (post(CHUNKED, body=b"3e9\r\n"), 413),
        (post(b"Content-Length: 1001\r\n"), 413),
        (post(b"Content-Length: 5\r\n", body=b"hello", method=b"GET"), 413),
        (post(CHUNKED, body=b"0\r\n\r\n", method=b"GET"), 413),
    ],
    ids=lambda value: (
        None
        if isinstance(value, int)
        else value.partition(b"localhost\r\n")[2][:50].decode("latin-1").encode("unicode_escape").decode()
    ),
)
@pytest.mark.parametrize("path", [b"/", b"/plain"])
async def test_a_body_that_two_parsers_could_read_differently_is_refused(request_, status, path, transport):
    if path == b"/plain" and request_.startswith(b"GET"):
        status = 413
    server, told = serving(max_body=1000)
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        said = await answer(server, transport, request_.replace(b" / ", b" %b " % path, 1))
        await until(lambda: told)
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in said
    assert said.count(b"HTTP/1.1 ") == 1
    assert told == [status]


async def test_a_request_after_the_body_is_never_answered(transport):
    """Nor is one in the body of a request that no handler reads. The client has asked for the end."""
    server, _ = serving()
    smuggled = b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n"
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        for request in (
            post(b"Content-Length: 5\r\n", body=b"hello" + smuggled),
            post(CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n" + smuggled),
            post(CHUNKED, body=b"0\r\n\r\n" + smuggled).replace(b" / ", b" /nowhere "),
            post(b"Content-Length: 0\r\n", body=smuggled).replace(b" / ", b" /nowhere "),
        ):
            said = await answer(server, transport, request)
            assert said.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("path", [b"/", b"/plain"])
async def test_a_body_that_comes_too_slowly_is_answered_with_408(path, transport):
    server, told = serving(body_timeout=0.2)
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(post(b"Content-Length: 5\r\n", body=b"hell").replace(b" / ", b" %b " % path))
            assert (await peer.read_head()).startswith("HTTP/1.1 408 ")
            while await peer.more():
                pass
        await until(lambda: told == [408])


async def test_a_body_that_keeps_trickling_is_answered_with_408_too(transport):
    server, _ = serving(body_timeout=0.3)
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(post(CHUNKED))
            reading = asyncio.ensure_future(peer.read_head())
            while not reading.done():
                await peer.write(b"1\r\nx\r\n")
                await asyncio.sleep(0.02)
            assert (await reading).startswith("HTTP/1.1 408 ")


@pytest.mark.parametrize("path", [b"/", b"/plain"])
@pytest.mark.parametrize("end", ["FIN", "RST"])
async def test_a_client_that_leaves_within_its_body_leaves_nothing_behind(path, end, transport, caplog):
    server, _ = serving()
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(
                post(b"Content-Length: 500000\r\n", body=b"x" * 1000).replace(b" / ", b" %b " % path)
            )
            await until(lambda: server._dispatcher.tasks)
            await peer.until_acknowledged()
            if end == "FIN":
                peer.fin()
            else:
                peer.reset()
            await until(lambda: not server._dispatcher.tasks and not server._listener.openings)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_large_body_that_no_handler_asks_for_is_not_kept(transport):
    """A client sends much more than a body may have, to a path that reads none: it waits in the kernel, or is discarded."""
    server, _ = serving()
    release = asyncio.Event()

    @server.route("/later", methods=["POST"])
    async def later(request):
        await release.wait()
        return "done"

    async with nothing_left_behind(), server.serving(ssl=transport.server):
        with await RawPeer.connect_tcp(server.port, transport.client, buffer=2**16) as peer:
            await peer.tls_handshake()
            await peer.write(post(b"Content-Length: 1000000000\r\n").replace(b" / ", b" /later "))
            sent = 0

            async def flood():
                nonlocal sent
                while True:
                    await peer.send_tcp(peer.encrypt(b"x" * 2**14))
                    sent += 2**14

            task = asyncio.ensure_future(flood())
            before = -1
            while before < sent:
                before = sent
                await asyncio.sleep(0.05)
            (exchange,) = server._listener.openings
            assert exchange.request_body()._size == 0
            assert sent < 2**26
            task.cancel()
            await asyncio.wait([task])
            release.set()
