"""Count, and continue after each restart of an echo server: python examples/reconnecting.py [url]."""

import asyncio
import signal
import sys
from contextlib import suppress

import endwell


def tell(last: endwell.Ending | endwell.HandshakeError, verdict: float | endwell.StopReason) -> None:
    """Print how the connection ended and when the next attempt is."""
    stops = isinstance(verdict, endwell.StopReason)
    print(f"{last}; {verdict.value if stops else f'back in {verdict:.1f} s'}", flush=True)


async def main(url: str) -> None:
    """Continue to count after each reconnect."""
    client = endwell.reconnecting(url, on_ending=tell)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, client.stop)
    count = 1
    async for ws in client:
        # At the end of a connection, recv() and send() raise. The loop goes on.
        with suppress(endwell.ConnectionClosed):
            while True:
                await ws.send(str(count))
                print(await ws.recv(), flush=True)
                count += 1
                await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/"))
