"""Step 1, a client: python examples/tutorial/client.py [url]."""

import asyncio
import sys

import endwell


async def main(url: str) -> None:
    """Send one message and print the answer."""
    async with endwell.connect(url) as ws:
        await ws.send("hello")
        print(await ws.recv())
    print(ws.ending)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/echo"))
