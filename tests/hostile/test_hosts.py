"""DNS rebinding: a page whose host name was pointed at a server of a private network."""

from __future__ import annotations

import pytest

from tests.hostile.honest import attacked
from tests.raw import RawPeer
from tests.wire.peer import TEXT

REBOUND = b"Host: rebound.example:80"


@pytest.mark.parametrize("path", ["/", "/page", "/nothing/here"])
async def test_a_request_for_another_host_gets_421(path, transport, caplog):
    async with attacked(transport=transport, allowed_hosts=["127.0.0.1", "localhost"]) as both:
        for line in (REBOUND, b"Host: 127.0.0.1.rebound.example", b"Host: [::1]", b"Host: localhost."):
            with await RawPeer.connect_tcp(both.port, transport.client) as peer:
                await peer.tls_handshake()
                request = peer.request(path).replace(b"Host: localhost", line)
                # The origin of a page is that of the name that it was loaded from.
                origin = line.replace(b"Host: ", b"\r\nOrigin: http://")
                await peer.write(request[:-4] + origin + b"\r\n\r\n" + peer.octets(TEXT, b"smuggled"))
                head = await peer.read_head()
                assert head.startswith("HTTP/1.1 421 Misdirected Request\r\n")
                assert "rebound" not in head
                while await peer.more():
                    pass
                await peer.send_close_notify()
                peer.fin()
        assert not both.handled
    assert not caplog.records


async def test_the_host_of_an_absolute_target_is_checked():
    async with attacked(allowed_hosts=["127.0.0.1", "localhost"]) as both:
        for target, status in (("http://rebound.example/page", "421"), ("http://localhost/page", "200")):
            with await RawPeer.connect_tcp(both.port) as peer:
                await peer.write(
                    f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
                )
                assert (await peer.read_head()).startswith(f"HTTP/1.1 {status} ")
                peer.fin()


async def test_a_request_without_host_is_refused_by_allowed_hosts():
    async with attacked(allowed_hosts=["127.0.0.1"]) as both:
        with await RawPeer.connect_tcp(both.port) as peer:
            await peer.write(b"GET /page HTTP/1.0\r\n\r\n")
            assert (await peer.read_head()).startswith("HTTP/1.1 421 ")
            peer.fin()


async def test_without_allowed_hosts_every_host_is_accepted():
    async with attacked() as both:
        with await RawPeer.connect_tcp(both.port) as peer:
            await peer.write(b"GET /page HTTP/1.1\r\n" + REBOUND + b"\r\nConnection: close\r\n\r\n")
            assert (await peer.read_head()).startswith("HTTP/1.1 200 ")
            peer.fin()
