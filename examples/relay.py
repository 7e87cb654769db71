"""One task sends what is queued and reads what arrives: python examples/relay.py [port]."""

import asyncio
import logging
import sys

import endwell

server = endwell.Server(open_timeout=5, write_timeout=10, idle_timeout=300)
outgoing: asyncio.Queue[str | bytes] = asyncio.Queue()


@server.websocket("/in")
async def collect(ws: endwell.WebSocket) -> None:
    """Queue each message for /out."""
    async for message in ws:
        outgoing.put_nowait(message)


@server.websocket("/out")
async def deliver(ws: endwell.WebSocket) -> None:
    """After a timeout the connection is still open, and no message is lost."""
    while True:
        while not outgoing.empty():
            await ws.send(outgoing.get_nowait())
        try:
            async with asyncio.timeout(0.1):
                message = await ws.read()
        except TimeoutError:
            continue
        if message is None:
            break
        await ws.send(f"you said {message!r}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
