"""Each phase of connect() is a trap: ``open_timeout``, cancellation and stop() end it, and nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

import endwell
from endwell import HandshakeError
from tests.face import ASYNCIO
from tests.pair import nothing_left_behind, until, within
from tests.raw import PROMPT, RawServer, wss
from tests.served import SLOW

#: What a proxy answers before the tunnel is open, and the SOCKS answers before the request.
OPEN = b"HTTP/1.1 200 OK\r\n\r\n"
HALF = OPEN[:-2]
NO_PASSWORD, PASSWORD = b"\x05\x00", b"\x05\x02"

#: For each phase that a peer holds: the URI, the scheme and user of the proxy, what the peer sends first after each
#: read, and `HandshakeError.phase`.
PEERS: dict[str, tuple[str, str, list[bytes], str]] = {
    "TLS": ("wss://{}/", "", [], "tls"),
    "the answer": ("ws://{}/", "", [], "http"),
    "the answer of an HTTP proxy": ("ws://chat.example/", "http://{}", [], "proxy"),
    "half an answer of an HTTP proxy": ("ws://chat.example/", "http://{}", [HALF], "proxy"),
    "TLS of the proxy": ("ws://chat.example/", "https://{}", [], "proxy"),
    "the answer of a proxy with TLS": ("ws://chat.example/", "https://{}", [b""], "proxy"),
    "the method of SOCKS5": ("ws://chat.example/", "socks5h://{}", [], "proxy"),
    "the password of SOCKS5": ("ws://chat.example/", "socks5h://ada:secret@{}", [PASSWORD], "proxy"),
    "the reply of SOCKS5": ("ws://chat.example/", "socks5h://{}", [NO_PASSWORD], "proxy"),
    "the reply of SOCKS4": ("ws://chat.example/", "socks4a://{}", [], "proxy"),
    "the answer in a tunnel": ("ws://chat.example/", "http://{}", [OPEN], "http"),
    "TLS in a tunnel": ("wss://chat.example/", "http://{}", [OPEN], "tls"),
    "TLS in TLS": ("wss://chat.example/", "https://{}", [b"", OPEN], "tls"),
}
FUNCTIONS = ("uri", "additional_headers", "token")
#: Over a transport of the loop, the loop does the TLS with the proxy, and the TLS within it.
OVER = " over a transport"
PHASES = [*FUNCTIONS, *PEERS, *[name + OVER for name, how in PEERS.items() if how[1].startswith("https")]]


@dataclass
class Trap:
    """Where a client hangs in its phase."""

    uri: Any
    phase: str
    how: dict[str, Any] = field(default_factory=dict)
    #: Set once the client is in the phase.
    reached: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def name(request, use):
    if request.param.endswith(OVER):
        use("ws over a transport")
    return request.param


@asynccontextmanager
async def trap(name, face):
    """A client that connects to it hangs in the phase ``name`` until the end of the block."""
    async with AsyncExitStack() as stack:
        if name in FUNCTIONS:
            yield asking(name, face, stack)
            return
        uri, proxy, answers, phase = PEERS[name.removesuffix(OVER)]
        tls = wss()
        listening = stack.enter_context(RawServer(tls.server if proxy.startswith("https") else None))
        address = listening.uri.partition("://")[2].rstrip("/")
        made = Trap(uri.format(address), phase, {"proxy": proxy.format(address) or None})
        if uri.startswith("wss"):
            made.how["ssl"] = tls.client
        if proxy.startswith("https"):
            made.how["proxy_ssl"] = tls.client
        holding = asyncio.create_task(hold(listening, answers, made.reached))
        yield made
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


def asking(name, face, stack):
    left = threading.Event()
    stack.callback(left.set)

    async def function():
        made.reached.set()
        await face.wait(left)

    asked = face.function(function)
    made = Trap("ws://127.0.0.1:1/", "arguments", {name: asked})
    if name == "uri":
        made = Trap(asked, "arguments")
    return made


async def hold(listening, answers, reached):
    """Read, answer, and read again; after the last answer, only read."""
    with await listening.accept_tcp() as peer:
        if secure := answers[:1] == [b""]:  # the phase is after the TLS of the proxy
            await peer.tls_handshake()
            await peer.read_head()
        else:
            await peer.recv_tcp()
        for answer in answers[secure:]:
            await peer.write(answer)
            if answer != HALF:
                await (peer.more() if secure else peer.recv_tcp())
        reached.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("name", PHASES, indirect=True)
async def test_open_timeout_ends_each_phase(name, face):
    for seconds in (0.2, 1, 5, 20):  # on a slow machine, the phase may not be reached in the first
        async with nothing_left_behind(), trap(name, face) as made:
            with pytest.raises(HandshakeError, match=rf"within {seconds} s \(open_timeout\)") as caught:
                await within(face.connect(made.uri, open_timeout=seconds, **made.how))
        assert caught.value.ending.duration >= seconds - 0.01  # uvloop's clock counts whole milliseconds
        if made.reached.is_set():
            break
    assert made.reached.is_set()
    assert caught.value.phase == made.phase


@pytest.mark.parametrize("name", PHASES, indirect=True)
async def test_a_cancelled_connect_leaves_nothing_in_each_phase(name):
    async with nothing_left_behind(), trap(name, ASYNCIO) as made:
        task = asyncio.ensure_future(endwell.connect(made.uri, open_timeout=3 * PROMPT, **made.how))
        await until(made.reached.is_set)
        task.cancel()
        await asyncio.wait({task}, timeout=PROMPT)
        assert task.cancelled()


@pytest.mark.parametrize("how", ["once", "again and again", "aclose"])
@pytest.mark.parametrize("name", PHASES, indirect=True)
async def test_a_stopped_loop_ends_at_once_in_each_phase(how, name, face):
    async with nothing_left_behind(), trap(name, face) as made:
        client = face.reconnecting(made.uri, policy=SLOW, open_timeout=3 * PROMPT, **made.how)
        task = asyncio.ensure_future(anext(aiter(client), "ended"))
        await until(made.reached.is_set)
        if how == "aclose":
            await within(client.aclose())
        else:
            client.stop()
        async with asyncio.timeout(PROMPT):
            while how == "again and again" and not task.done():
                client.stop()
                await asyncio.sleep(0)
            assert await task == "ended"
        assert client.state.reason is endwell.StopReason.STOPPED
