"""Clients through the proxies that people run: tinyproxy and Squid (HTTP), Dante and microsocks (SOCKS)."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from python_socks import ProxyError as ProxyRefusal
from python_socks.async_.asyncio import Proxy

import endwell
from endwell import HandshakeError, HandshakeRejected, TcpEnd
from endwell.aio.resolve import resolve
from endwell.errors import ProxyError
from tests.cli.process import PATIENCE
from tests.deploy.proxies import until_listening
from tests.pair import within
from tests.ports import free_port
from tests.raw import HOST, PLAIN, RawServer, wss

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 600
LogLevel Info
BasicAuth me s3cret
"""

#: Started by root, Squid changes to a user that the Debian package creates.
SQUID = """
http_port 127.0.0.1:{port}
https_port 127.0.0.1:{tls_port} tls-cert={folder}/proxy.pem
http_access allow all
access_log none
cache_log /dev/null
cache deny all
cache_mem 0
memory_cache_shared off
pid_filename none
shutdown_lifetime 0 seconds
cache_effective_user proxy
via off
"""

DANTED = """
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: lo
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks block {{ from: 0.0.0.0/0 to: 127.0.0.3/32 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
"""


@contextmanager
def running(name, folder):
    """A proxy; yields its port, and the port of its TLS."""
    port, tls_port = free_port(), free_port()
    text = {"tinyproxy": TINYPROXY, "squid": SQUID, "danted": DANTED, "microsocks": ""}[name]
    (folder / "proxy.conf").write_text(text.format(port=port, tls_port=tls_port, folder=folder))
    argv = {
        "tinyproxy": ["tinyproxy", "-d", "-c", "proxy.conf"],
        "squid": ["squid", "-N", "-n", f"test{port}", "-d", "1", "-f", str(folder / "proxy.conf")],
        "danted": ["danted", "-N", "1", "-f", "proxy.conf"],
        "microsocks": ["microsocks", "-i", HOST, "-p", str(port), "-u", "me", "-P", "s3cret"],
    }[name]
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(argv, stdout=output, stderr=output, cwd=folder) as process,
    ):
        try:
            until_listening(process, port, log)
            yield port, tls_port
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def folder():
    """A folder that other users can read, with a certificate of an authority of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        authority = trustme.CA()
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(folder / "proxy.pem")
        authority.cert_pem.write_to_path(folder / "authority.pem")
        yield folder


@pytest.fixture
def proxy(folder):
    """Starts a proxy."""
    return lambda name: running(name, folder)


async def talk(face, transport, proxy, **how):
    """Exchange messages through ``proxy``; check that the ending is that of a direct connection."""
    server = endwell.Server()

    @server.websocket("/")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with server.serving(ssl=transport.server):
        scheme = "ws" if transport.server is None else "wss"
        url = f"{scheme}://localhost:{server.port}/"
        how = {"family": 2, "compression": None, **how}
        ws = await within(face.connect(url, ssl=transport.client, proxy=proxy, **how))
        for message in ("a", "b" * 300_000):
            await within(ws.send(message))
            assert await within(ws.recv()) == message
        ending = await within(ws.close())
    assert (ending.clean, ending.tcp) == (True, TcpEnd.FIN)


@pytest.mark.parametrize("transport", ["ws", "wss"], indirect=True)
async def test_tinyproxy_with_credentials(proxy, face, transport):
    with proxy("tinyproxy") as (port, _):
        await talk(face, transport, f"http://me:s3cret@{HOST}:{port}")
        with pytest.raises(HandshakeRejected) as caught:
            await within(face.connect("ws://chat.example/", proxy=f"http://me:wrong@{HOST}:{port}"))
    assert caught.value.phase == "proxy"
    assert caught.value.response.status in (401, 407)  # 1.11 answers wrong credentials with 401
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("transport", ["ws", "wss"], indirect=True)
async def test_squid_also_with_tls(proxy, face, transport, folder):
    with proxy("squid") as (port, tls_port):
        await talk(face, transport, f"http://{HOST}:{port}")
        context = ssl.create_default_context(cafile=folder / "authority.pem")
        await talk(face, transport, f"https://{HOST}:{tls_port}", proxy_ssl=context)
        with pytest.raises(HandshakeRejected, match="HTTP 503 Service Unavailable") as caught:
            await within(face.connect(f"ws://{HOST}:1/", proxy=f"http://{HOST}:{port}"))
    assert caught.value.phase == "proxy"
    assert b"Connection refused" in caught.value.response.body


# Dante 1.4 does not have SOCKS4a: it connects to the address that announces a name, 0.0.0.1.
@pytest.mark.parametrize("scheme", ["socks4", "socks5", "socks5h"])
async def test_dante(proxy, face, scheme):
    with proxy("danted") as (port, _):
        await talk(face, wss(), f"{scheme}://{HOST}:{port}")
        for target, reply in ((f"{HOST}:1", {91, 5}), ("127.0.0.3", {91, 2})):
            with pytest.raises(HandshakeError) as caught:
                await within(face.connect(f"ws://{target}/", proxy=f"{scheme}://{HOST}:{port}"))
            assert caught.value.phase == "proxy"
            reason = caught.value.ending.exception
            assert isinstance(reason, ProxyError)
            assert reason.reply in reply


async def test_an_address_that_dante_refuses_is_followed_by_the_next_one(proxy, face, monkeypatch):
    async def resolved(host, port, of_family=0):
        if host != "localhost":
            return await resolve(host, port, of_family)
        return [(socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, (HOST, port))]

    monkeypatch.setattr("endwell.aio.reach.resolve", resolved)
    with proxy("danted") as (port, _):  # its rules are for IPv4
        await talk(face, PLAIN, f"socks5://{HOST}:{port}", family=0)


async def test_microsocks_with_credentials(proxy, face):
    with proxy("microsocks") as (port, _):
        await talk(face, PLAIN, f"socks5h://me:s3cret@{HOST}:{port}")
        for userinfo in ("me:wrong@", ""):
            with pytest.raises(HandshakeError) as caught:
                await within(face.connect("ws://chat.example/", proxy=f"socks5h://{userinfo}{HOST}:{port}"))
            assert caught.value.phase == "proxy"
            assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("tinyproxy", "http://me:s3cret@", "http://me:wrong@"),
        ("squid", "http://", None),
        ("danted", "socks5://", None),
        ("danted", "socks4://", None),
        ("microsocks", "socks5://me:s3cret@", "socks5://me:wrong@"),
    ],
)
async def test_another_implementation_connects_and_is_refused_alike(proxy, name, good, bad):
    with proxy(name) as (port, _), RawServer() as listening:
        target = int(listening.uri.rpartition(":")[2].strip("/"))
        for userinfo in filter(None, (good, bad)):
            url = f"{userinfo}{HOST}:{port}"
            for to, connects in ((target, userinfo == good), (1, False)):
                theirs, ours = (
                    await outcome(Proxy.from_url(url).connect(HOST, to, timeout=PATIENCE)),
                    await outcome(opened(url, to, listening if connects else None)),
                )
                assert (theirs, ours) == (connects, connects)


async def outcome(connecting):
    """Whether the proxy connects."""
    try:
        (await within(connecting)).close()
    except (ProxyRefusal, HandshakeError):
        return False
    return True


async def opened(url, port, listening):
    """The socket of the server, to which endwell's client is connected through the proxy ``url``."""
    task = asyncio.ensure_future(endwell.connect(f"ws://{HOST}:{port}/", proxy=url))
    if listening is None:
        await task
    while True:
        peer = await listening.accept_tcp()
        try:
            await peer.upgrade()
        except AssertionError:  # the connection of the other implementation
            peer.drop()
            continue
        (await task).abort()
        return peer.sock
