"""Count, and continue after each restart, in blocking style: python examples/reconnecting_blocking.py [url]."""

import signal
import sys
import time
from contextlib import suppress

import endwell
from endwell import sync


def tell(last: endwell.Ending | endwell.HandshakeError, verdict: float | endwell.StopReason) -> None:
    """Print how the connection ended and when the next attempt is."""
    stops = isinstance(verdict, endwell.StopReason)
    show(f"{last}; {verdict.value if stops else f'back in {verdict:.1f} s'}")


def show(text: object) -> None:
    """Print a line in one write, because on_ending runs in another thread."""
    print(f"{text}\n", end="", flush=True)


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/"
    count = 1
    client = sync.reconnecting(url, on_ending=tell)
    signal.signal(signal.SIGTERM, lambda *_: client.stop())
    for ws in client:
        # At the end of a connection, recv() and send() raise. The loop goes on.
        with suppress(endwell.ConnectionClosed):
            while True:
                ws.send(str(count))
                show(ws.recv())
                count += 1
                time.sleep(0.2)
