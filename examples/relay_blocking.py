"""One thread sends what is queued and reads what arrives: python examples/relay_blocking.py [port]."""

import logging
import queue
import sys
from contextlib import suppress

import endwell
from endwell import sync

server = endwell.Server(open_timeout=5, write_timeout=10, idle_timeout=300)
outgoing: queue.SimpleQueue[str | bytes] = queue.SimpleQueue()


@server.websocket("/in")
def collect(ws: sync.WebSocket) -> None:
    """Queue each message for /out."""
    for message in ws:
        outgoing.put(message)


@server.websocket("/out")
def deliver(ws: sync.WebSocket) -> None:
    """After a timeout the connection is still open, and no message is lost."""
    while True:
        with suppress(queue.Empty):
            while True:
                ws.send(outgoing.get_nowait())
        try:
            message = ws.read(timeout=0.1)
        except TimeoutError:
            continue
        if message is None:
            break
        ws.send(f"you said {message!r}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
