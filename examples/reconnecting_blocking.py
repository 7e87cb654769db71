"""Count, across every restart of an echo server, in blocking style: python examples/reconnecting_blocking.py [url]."""

import signal
import sys
import time
from contextlib import suppress

import endwell
from endwell import sync


def tell(last: endwell.Ending | endwell.HandshakeFailed, verdict: float | endwell.Stop) -> None:
    """Say how it ended and what comes next."""
    stops = isinstance(verdict, endwell.Stop)
    print(f"{last}; {verdict.value if stops else f'back in {verdict:.1f} s'}", flush=True)


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/"
    count = 1
    client = sync.reconnecting(url, on_ending=tell)
    signal.signal(signal.SIGTERM, lambda *_: client.stop())
    for ws in client:
        # recv() and send() raise at the end of the connection, not of the loop.
        with suppress(endwell.ConnectionClosed):
            while True:
                ws.send(str(count))
                print(ws.recv(), flush=True)
                count += 1
                time.sleep(0.2)
