"""Safe without configuration: finite limits, same origin, no old protocols, no trust in proxy headers."""

from __future__ import annotations

from dataclasses import fields

import pytest

from endwell import Options, Server
from tests.hostile.honest import attacked
from tests.pair import until
from tests.raw import RawPeer

#: The options that are off by default, and why nothing is unbounded without them.
OFF = {
    "idle_timeout": "keepalive ends dead peers; an honest idle one may stay",
    "stale_after": "likewise",
    "max_lifetime": "likewise",
    "max_connections": "file descriptors are the bound, and running out of them is survived",
    "max_connections_per_address": "behind a proxy all come from one",
}


def test_every_limit_is_finite_by_default():
    limits = {field.name: field.default for field in fields(Options) if field.metadata["unit"]}
    assert {name for name, default in limits.items() if default is None} == set(OFF)
    assert Server()._dispatcher.threads._handlers.bound == 1000


def test_old_protocols_are_off_and_compression_is_bounded_by_default():
    assert Options().spoken == ()
    assert Options().compression.client_max_window_bits == 12
    # The server's own window is 12 bits too, which needs no negotiation: tests/wire/test_deflate.py.
    assert Options().compression.server_max_window_bits is None


FORWARDED = [
    b"X-Forwarded-For: 192.0.2.66",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: victim.example",
    b"X-Real-IP: 192.0.2.66",
    b"Forwarded: for=192.0.2.66;proto=https;host=victim.example",
]


async def test_proxy_headers_of_a_peer_are_not_trusted():
    async with attacked() as both:
        with await RawPeer.connect_tcp(both.port) as peer:
            await peer.write(peer.request()[:-2] + b"\r\n".join(FORWARDED) + b"\r\n\r\n")
            await peer.read_head()
            await until(lambda: both.handled)
            (ws,) = both.handled
            assert ws.remote_address == peer.sock.getsockname()
            assert ws.request.remote_address == ws.remote_address
            assert not ws.request.secure
            assert ws.request.headers["Host"] == "localhost"


@pytest.mark.parametrize("header", [*FORWARDED, b"X-Original-Host: victim.example"])
async def test_no_proxy_header_makes_another_origin_the_same_origin(header):
    async with attacked() as both:
        with await RawPeer.connect_tcp(both.port) as peer:
            origin = b"Origin: https://victim.example"
            await peer.write(peer.request()[:-2] + header + b"\r\n" + origin + b"\r\n\r\n")
            assert (await peer.read_head()).startswith("HTTP/1.1 403 ")
            peer.fin()
