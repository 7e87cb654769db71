"""Mocks of a WebSocket in the unit tests of an application."""

from __future__ import annotations

from unittest.mock import AsyncMock, MagicMock, create_autospec

import pytest

from endwell import Close, ConnectionClosed, WebSocket
from tests.pair import pair


async def greet(ws):
    """A handler."""
    await ws.send("hello")
    answer = await ws.recv()
    await ws.ping()
    async for message in ws:
        await ws.send(message)
    if await ws.read() is None:
        await ws.close(1000, ws.request.path)
    return answer, await ws.wait_closed()


KINDS = {
    "AsyncMock": lambda: AsyncMock(spec=WebSocket),
    "MagicMock": lambda: MagicMock(spec=WebSocket),
    "create_autospec": lambda: create_autospec(WebSocket, instance=True),
}


@pytest.fixture(params=KINDS)
def ws(request):
    return KINDS[request.param]()


async def test_a_mock_of_a_websocket_is_awaitable_like_the_websocket(ws):
    ws.recv.return_value = "answer"
    ws.read.return_value = None
    ws.wait_closed.return_value = "ending"
    ws.request.path = "/chat"
    ws.__aiter__.return_value = ["one", "two"]
    assert await greet(ws) == ("answer", "ending")
    assert [call.args for call in ws.send.await_args_list] == [("hello",), ("one",), ("two",)]
    ws.close.assert_awaited_once_with(1000, "/chat")


async def test_methods_that_are_not_awaitable_are_plain_in_a_mock(ws):
    ws.on_close(print)
    ws.abort()
    assert not isinstance(ws.abort, AsyncMock)
    assert ws.subprotocol is not None
    with pytest.raises(AttributeError):
        ws.sned("x")


async def test_a_mock_specified_by_a_connection_works_too():
    async with pair("server") as both:
        ws = AsyncMock(spec=both.ws)
        ws.recv.side_effect = ["answer", ConnectionClosed]
        await ws.send("x")
        assert await ws.recv() == "answer"
        await ws.close()
        both.peer.fin()
        assert (await both.ending()).received in (None, Close())
