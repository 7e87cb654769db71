"""Socket options and TCP_INFO for a peer that acknowledges or reads nothing."""

from __future__ import annotations

import socket

import pytest

from endwell import Cause, Initiator, TcpEnd
from endwell.aio.tcpinfo import set_user_timeout
from endwell.options import Options
from tests.pair import pair

DEFAULTS = {"ping_interval": 20.0, "ping_timeout": 20.0, "write_timeout": 30.0}


def limit(sock) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def limited(**options) -> int:
    with socket.socket() as sock:
        set_user_timeout(sock, Options(**options))
        return limit(sock)


async def test_every_socket_has_the_user_timeout_of_its_options(role, transport):
    async with pair(role, transport, **DEFAULTS) as both:
        assert limit(both.ws._stream.sock) == 81_000


def test_a_unix_socket_has_no_user_timeout():
    with socket.socket(socket.AF_UNIX) as sock:
        set_user_timeout(sock, Options())


def test_the_user_timeout_follows_from_keepalive_and_write_timeout():
    assert limited() == 81_000
    assert limited(write_timeout=100) == 101_000
    assert limited(ping_interval=0.25, ping_timeout=0.125, write_timeout=0.25) == 1_750
    assert limited(ping_interval=1e9) == 2**31 - 1


@pytest.mark.parametrize("option", DEFAULTS)
def test_disabling_a_timeout_disables_the_user_timeout(option):
    assert limited(**{option: None}) == 0


def set_limit(both, milliseconds):
    both.ws._stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


async def test_a_peer_that_acknowledges_nothing_is_a_network_error(role, transport):
    async with pair(role, transport, write_timeout=None) as both:
        set_limit(both, 300)
        await both.peer.vanish()
        await both.ws.send("anybody there?")
        ending = await both.ending()
    assert (ending.cause, ending.initiator) == (Cause.NETWORK_ERROR, Initiator.NETWORK)
    assert (ending.code, ending.tcp, ending.clean) == (1006, TcpEnd.TIMEOUT, False)
    assert isinstance(ending.exception, TimeoutError)


async def test_a_peer_with_a_zero_window_is_a_write_timeout(role):
    async with pair(role, buffer=65536, write_timeout=None) as both:
        set_limit(both, 2000)  # time for some zero-window probes, which the peer answers
        await both.ws.send(bytes(2**24))
        ending = await both.ending()
    assert (ending.cause, ending.initiator) == (Cause.WRITE_TIMEOUT, Initiator.LOCAL)
    assert (ending.code, ending.tcp, ending.sent) == (1006, TcpEnd.TIMEOUT, None)
    assert ending.unsent_bytes > 0
