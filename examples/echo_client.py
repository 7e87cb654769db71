"""Send a message to an echo server: python examples/echo_client.py [URL]."""

import asyncio
import sys

import endwell


async def main(url: str) -> None:
    """Send one message, print the answer, and print how the connection ended."""
    try:
        async with endwell.connect(url) as ws:
            await ws.send("Hello, WebSocket!")
            print("received:", await ws.recv())
    except endwell.HandshakeError as exc:
        sys.exit(f"failed to connect: {exc}")
    print(ws.ending)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/echo"))
