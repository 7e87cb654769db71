"""Where a client connects to: the arguments that the URI does not have, zones, and redirects with them."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import asynccontextmanager

import pytest

import endwell
import endwell.sync
from endwell import Cause, HandshakeError, HandshakeRejected
from endwell.aio.resolve import resolve
from endwell.protocol.deadline import LATE
from endwell.protocol.uri import parse_uri
from tests.pair import nothing_left_behind, until, within
from tests.raw import HOST, PLAIN, RawServer, wss
from tests.relay import relaying

FACES = pytest.mark.parametrize("module", [endwell, endwell.sync], ids=["asyncio", "sync"])


@asynccontextmanager
async def served(transport=PLAIN, host=HOST):
    """A server that sends the Host, the client's address, and the name in the TLS handshake."""
    server = endwell.Server()
    names = []

    @server.websocket("/")
    async def tell(ws):
        await ws.send(f"{ws.request.headers['Host']} {ws.remote_address[0]}")
        await ws.closed

    if transport.server is not None:
        transport.server.sni_callback = lambda _object, name, _context: names.append(name)
    try:
        async with server.serving(host, 0, ssl=transport.server):
            server.names = names
            yield server
    finally:
        if transport.server is not None:
            transport.server.sni_callback = None


async def told(face, *arguments, **how):
    ws = await within(face.connect(*arguments, **how))
    message = await within(ws.recv())
    await within(ws.close())
    return message


async def test_host_and_port_replace_those_of_the_uri_but_not_in_the_request(face):
    async with served() as server:
        message = await told(face, "ws://chat.example/", host=HOST, port=server.port)
    assert message == f"chat.example {HOST}"


async def test_server_hostname_is_the_name_of_the_certificate_and_of_sni(face):
    tls = wss()
    async with served(tls) as server:
        uri = f"wss://chat.example:{server.port}/"
        with pytest.raises(HandshakeError, match="certificate verify failed"):
            await within(face.connect(uri, host=HOST, ssl=tls.client))
        await told(face, uri, host=HOST, ssl=tls.client, server_hostname="localhost")
        assert server.names == ["chat.example", "localhost"]


async def test_a_connected_socket_is_used_and_closed(face):
    async with served() as server:
        sock = socket.create_connection((HOST, server.port))
        local = sock.getsockname()
        async with asyncio.timeout(30):
            ws = await face.connect("ws://chat.example/", sock=sock)
        assert ws.local_address == local
        await within(ws.close())
        # The loop of the blocking clients closes it in its own thread.
        await until(lambda: sock.fileno() == -1)


async def test_a_socket_that_is_not_connected_is_closed_and_fails(face):
    with RawServer():
        sock = socket.socket()
        with pytest.raises(HandshakeError, match="not connected") as caught:
            await within(face.connect("ws://chat.example/", sock=sock))
    await until(lambda: sock.fileno() == -1)
    assert caught.value.phase == "connect"


async def test_a_socket_is_closed_if_the_connect_is_cancelled_or_fails():
    with RawServer() as listening:
        port = int(listening.uri.rpartition(":")[2].strip("/"))
        async with nothing_left_behind():
            task = asyncio.ensure_future(
                endwell.connect("ws://chat.example/", sock=socket.create_connection((HOST, port)))
            )
            with await listening.accept_tcp() as peer:
                await peer.read_head()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task


@pytest.mark.parametrize("argument", ["uri", "additional_headers", "token"])
async def test_a_socket_is_closed_if_a_function_of_the_application_fails(argument, face):
    async def fail():
        raise LookupError

    near, far = socket.socketpair()
    arguments = {"uri": "ws://chat.example/", argument: face.function(fail)}
    with far, pytest.raises(HandshakeError, match=f"the function {argument} failed"):
        await within(face.connect(arguments.pop("uri"), sock=near, **arguments))
    assert near.fileno() == -1


@pytest.mark.parametrize("name", [f"{'a' * 64}.example", "chat..example", ".example"])
async def test_a_name_that_tls_cannot_have_fails_the_attempt(name, face):
    """Nothing resolves it if ``host`` or a proxy is given; a redirect may lead to it."""
    with RawServer() as listening:
        port = int(listening.uri.rpartition(":")[2].strip("/"))
        async with nothing_left_behind():
            with pytest.raises(HandshakeError, match="TLS cannot verify the name") as caught:
                await within(face.connect(f"wss://{name}/", host=HOST, port=port))
    assert caught.value.phase == "tls"


async def test_a_name_that_tls_cannot_have_fails_in_a_tunnel_over_a_transport(use, face, caplog):
    use("ws over a transport")
    tls, name = wss(), f"{'a' * 64}.example"
    async with nothing_left_behind(), relaying("https", tls=tls.server, hosts={name: HOST}) as relay:
        with RawServer() as listening:
            uri = f"wss://{name}:{listening.uri.rpartition(':')[2]}"
            with pytest.raises(HandshakeError, match="TLS cannot verify the name") as caught:
                await within(face.connect(uri, proxy=relay.url(), proxy_ssl=tls.client))
    assert (caught.value.phase, caught.value.ending.cause) == ("tls", Cause.TLS_ERROR)
    assert not caplog.records


async def test_local_addr_is_the_address_of_the_client(face):
    async with served() as server:
        uri = f"ws://{HOST}:{server.port}/"
        assert (await told(face, uri, local_addr=("127.0.0.2", 0))).endswith(" 127.0.0.2")
        with pytest.raises(HandshakeError, match="Cannot assign requested address") as caught:
            await within(face.connect(uri, local_addr=("192.0.2.1", 0)))
        assert caught.value.phase == "connect"
        with pytest.raises(HandshakeError, match="Address family not supported"):
            await within(face.connect(uri, local_addr=("::1", 0)))


async def test_family_restricts_the_addresses(face):
    async with served() as server:
        uri = f"ws://localhost:{server.port}/"
        assert (await told(face, uri, family=socket.AF_INET)).endswith(f" {HOST}")
        with pytest.raises(HandshakeError, match=f"cannot resolve '{HOST}'"):
            await within(face.connect(f"ws://{HOST}:{server.port}/", family=socket.AF_INET6))


async def test_the_zone_of_an_address_is_in_neither_the_host_nor_the_tls_name(face):
    """The zone of ``::1`` has no effect, so it can be tested without a link-local address."""
    async with served(host="::1") as server:
        message = await told(face, f"ws://[::1%251]:{server.port}/")
        assert message == f"[::1]:{server.port} ::1"
    tls = wss()
    async with served(tls, host="::1") as server:
        with pytest.raises(HandshakeError, match="certificate is not valid for '::1'") as caught:
            await within(face.connect(f"wss://[::1%251]:{server.port}/", ssl=tls.client))
        assert server.names == [None]  # RFC 6066 §3: no addresses in SNI
        assert str(caught.value).startswith(f"wss://[::1%251]:{server.port}/: ")


async def test_a_zone_is_the_scope_of_the_address():
    ((_, address),) = await resolve(parse_uri("ws://[fe80::1%25lo]/").address, 80)
    assert address == ("fe80::1", 80, 0, socket.if_nametoindex("lo"))


@pytest.mark.parametrize("uri", ["ws://[fe80::1%eth0]/", "ws://[fe80::1%25]/", "ws://[fe80::1%25a/b]/"])
def test_a_malformed_zone_is_explained(uri):
    with pytest.raises(ValueError, match=r"uri is malformed: (the zone .* %25|the IPv6 address)"):
        endwell.connect(uri)


# -- redirects ------------------------------------------------------------------------------------


def redirect(location):
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


async def redirected(face, location, **how):
    """What a client raises that is redirected to ``location``."""
    with RawServer() as listening:
        task = asyncio.ensure_future(face.connect(listening.uri, **how))
        with await listening.accept(redirect(location)), pytest.raises(HandshakeRejected) as caught:
            await within(task)
    return str(caught.value)


async def test_a_redirect_from_ws_to_wss_uses_the_ssl_of_the_call(face):
    tls = wss()
    async with served(tls) as server:
        with RawServer() as listening:
            task = asyncio.ensure_future(face.connect(listening.uri, ssl=tls.client))
            with await listening.accept(redirect(f"wss://{HOST}:{server.port}/")):
                ws = await within(task)
        assert ws.tls is not None
        await within(ws.close())


async def test_a_stall_above_open_timeout_between_two_redirects_makes_no_storm_of_connections(face):
    class Stall(logging.Handler):
        def emit(self, record):
            if "302" in record.getMessage():
                time.sleep(open_timeout + 2 * LATE)

    open_timeout = 2.5  # a stall of less than that does not end the first attempt before its answer
    logger, stall, level = (wire := logging.getLogger("endwell.wire.handshake")), Stall(), wire.level
    with RawServer() as listening:
        logger.addHandler(stall)
        logger.setLevel(logging.DEBUG)
        try:
            task = asyncio.ensure_future(face.connect(listening.uri, open_timeout=open_timeout))
            with await listening.accept(redirect("/b")), pytest.raises(HandshakeError):
                await within(task)
        finally:
            logger.removeHandler(stall)
            logger.setLevel(level)
        # One attempt, for which the kernel may have completed TCP in time.
        with await listening.accept_tcp(), pytest.raises(TimeoutError):
            await asyncio.wait_for(listening.accept_tcp(), 0.1)


async def test_redirects_are_not_followed_if_they_are_switched_off(face):
    text = await redirected(face, "/elsewhere", follow_redirects=False)
    assert text.endswith("refused with HTTP 302 Found")


@pytest.mark.parametrize("name", ["host", "port", "server_hostname"])
async def test_a_redirect_to_another_host_is_refused_if_an_argument_is_about_this_one(name, face):
    with RawServer() as listening:
        port = int(listening.uri.rpartition(":")[2].strip("/"))
        value = {"host": HOST, "port": port, "server_hostname": "a"}[name]
        task = asyncio.ensure_future(face.connect(listening.uri, **{name: value}))
        with await listening.accept(redirect("ws://b.example/")), pytest.raises(HandshakeRejected) as caught:
            await within(task)
    assert f"it leads to another host, and the connection uses {name}" in str(caught.value)


@pytest.mark.parametrize("location", [f"ws://{HOST}:1/", f"wss://{HOST}/"])
async def test_a_redirect_to_another_port_is_refused_if_the_port_is_an_argument(location, face):
    with RawServer() as listening:
        port = int(listening.uri.rpartition(":")[2].strip("/"))
        task = asyncio.ensure_future(face.connect(f"ws://{HOST}/", port=port))
        with await listening.accept(redirect("/a")):
            pass
        with await listening.accept(redirect(location)), pytest.raises(HandshakeRejected) as caught:
            await within(task)
    assert "it leads to another port, and the connection uses port" in str(caught.value)


async def test_a_redirect_of_a_given_socket_is_refused(face):
    with RawServer() as listening:
        port = int(listening.uri.rpartition(":")[2].strip("/"))
        sock = socket.create_connection((HOST, port))
        task = asyncio.ensure_future(face.connect("ws://chat.example/", sock=sock))
        with await listening.accept(redirect("/b")), pytest.raises(HandshakeRejected) as caught:
            await within(task)
    assert "the connection uses sock" in str(caught.value)


# -- misuse ---------------------------------------------------------------------------------------


@FACES
@pytest.mark.parametrize(
    ("keywords", "error", "text"),
    [
        ({"host": 1}, TypeError, "^host must be a str or None, not int"),
        ({"host": ""}, ValueError, "^host must be a name in ASCII or an IP address, not ''"),
        ({"host": "a b"}, ValueError, "^host must be a name"),
        ({"host": "b\u00fccher.example"}, ValueError, "^host must be a name in ASCII"),
        ({"host": "a\r\nX: y"}, ValueError, "^host must be a name"),
        ({"port": "80"}, TypeError, "^port must be an int or None, not str"),
        ({"port": True}, TypeError, "^port must be an int or None, not bool"),
        ({"port": 0}, ValueError, "^port must be a number from 1 to 65535, not 0"),
        ({"port": 65536}, ValueError, "^port must be a number"),
        ({"sock": 3}, TypeError, "^sock must be a socket.socket or None, not int"),
        ({"local_addr": "127.0.0.1"}, TypeError, "^local_addr must be a tuple"),
        ({"local_addr": ("127.0.0.1",)}, TypeError, "^local_addr must be a tuple"),
        ({"local_addr": ("127.0.0.1", -1)}, ValueError, "^the port of local_addr must be"),
        ({"local_addr": ("a b", 0)}, ValueError, "^local_addr must be a name"),
        ({"local_addr": ("127.0.0.1", True)}, TypeError, "^local_addr must be a tuple"),
        ({"family": "inet"}, TypeError, "^family must be socket.AF_INET"),
        ({"family": 99}, ValueError, "^family must be socket.AF_INET"),
        ({"server_hostname": ""}, ValueError, "^server_hostname must be a name"),
        ({"server_hostname": b"x"}, TypeError, "^server_hostname must be a str"),
        ({"follow_redirects": 0}, TypeError, "^follow_redirects must be True or False"),
        ({"ssl": "context"}, TypeError, "^ssl must be"),
        ({"ssl": wss().client, "follow_redirects": False}, ValueError, "^ssl is given, but uri is not wss"),
        ({"server_hostname": "a", "follow_redirects": False}, ValueError, "^server_hostname is given, but"),
        ({"unix_path": ""}, ValueError, "^unix_path must be a path"),
        # The kernel would connect to "/s".
        ({"unix_path": "/s\0/t"}, ValueError, "^unix_path must be a path"),
        ({"unix_path": 3}, TypeError, "^unix_path must be a path or None, not 3"),
        ({"unix_path": "/\ud800"}, ValueError, "^unix_path must be a path"),
        ({"unix_path": "/s", "host": "x"}, ValueError, "^host has no effect with unix_path"),
        ({"unix_path": "/s", "family": 2}, ValueError, "^family has no effect with unix_path"),
        ({"host": "fe80::1%eth0", "proxy": "http://x"}, ValueError, "^host has a zone"),
    ],
)
def test_a_wrong_argument_is_named(module, keywords, error, text):
    with pytest.raises(error, match=text):
        module.connect("ws://x/", **keywords)


@FACES
@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"port": 80}, "^port has no effect with sock"),
        ({"local_addr": ("127.0.0.1", 0)}, "^local_addr has no effect with sock"),
        ({"proxy": "http://x"}, "^proxy has no effect with sock"),
        ({"unix_path": "/s"}, "^sock has no effect with unix_path"),
    ],
)
def test_an_argument_that_contradicts_a_socket_is_named(module, keywords, text):
    with socket.socket() as sock, pytest.raises(ValueError, match=text):
        module.connect("ws://x/", sock=sock, **keywords)


@FACES
def test_a_datagram_socket_is_refused(module):
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match=r"^sock must be a stream"),
    ):
        module.connect("ws://x/", sock=sock)


@FACES
def test_a_socket_with_tls_is_refused(module):
    one, two = socket.socketpair()
    with (
        two,
        wss().client.wrap_socket(one, do_handshake_on_connect=False, server_hostname=HOST) as sock,
        pytest.raises(TypeError, match=r"^sock must be a socket without TLS"),
    ):
        module.connect("ws://x/", sock=sock)


@FACES
def test_a_socket_cannot_be_used_for_reconnecting(module):
    with socket.socket() as sock, pytest.raises(ValueError, match=r"^sock serves one connection only"):
        module.reconnecting("ws://x/", sock=sock)
