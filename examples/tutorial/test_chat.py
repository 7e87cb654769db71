"""Step 7, tests of the chat: python -m pytest examples/tutorial/test_chat.py."""

import asyncio

from page import server

import endwell


async def reads(ws: endwell.WebSocket, line: str) -> None:
    """Read until ``line`` comes; at most 10 seconds."""
    async with asyncio.timeout(10):
        while await ws.recv() != line:
            pass


async def talk() -> None:
    """Two users talk, and one of them reloads."""
    async with server.serving():
        base = f"ws://127.0.0.1:{server.port}/chat?name="
        async with endwell.connect(base + "Ada") as ada, endwell.connect(base + "Eve") as eve:
            await reads(ada, "* Eve joined")
            await eve.send("hello")
            await reads(ada, "Eve: hello")
            async with endwell.connect(base + "Eve") as reloaded:
                assert (await eve.closed).received == endwell.Close(4991, "replaced")
                await reloaded.send("back")
                # Neither "left" nor "joined" in between: a reload is the same user.
                assert await ada.recv() == "Eve: back"


def test_two_users_talk_and_one_of_them_reloads() -> None:
    """The chat works."""
    asyncio.run(talk())
