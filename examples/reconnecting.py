"""Count, across every restart of an echo server: python examples/reconnecting.py [url]."""

import asyncio
import signal
import sys
from contextlib import suppress

import endwell


def tell(last: endwell.Ending | endwell.HandshakeError, verdict: float | endwell.StopReason) -> None:
    """Say how it ended and what comes next."""
    stops = isinstance(verdict, endwell.StopReason)
    print(f"{last}; {verdict.value if stops else f'back in {verdict:.1f} s'}", flush=True)


async def main(url: str) -> None:
    """Go on where the last connection ended."""
    client = endwell.reconnecting(url, on_ending=tell)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, client.stop)
    count = 1
    async for ws in client:
        # recv() and send() raise at the end of the connection, not of the loop.
        with suppress(endwell.ConnectionClosed):
            while True:
                await ws.send(str(count))
                print(await ws.recv(), flush=True)
                count += 1
                await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/"))
