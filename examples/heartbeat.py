"""Notice a peer that fell silent: python examples/heartbeat.py [port [seconds]]."""

import logging
import sys
import time

import endwell
from endwell import sync

seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 15.0
server = endwell.Server(ping_interval=seconds, ping_timeout=seconds)


@server.websocket("/chat")
def chat(ws: sync.WebSocket) -> None:
    """Pings go out and are answered whatever this thread does; here it hardly reads at all."""
    while ws.is_open:
        time.sleep(0.1)
    if ws.wait_closed().cause is endwell.Cause.KEEPALIVE_TIMEOUT:
        print("fell silent:", ws.ending, flush=True)


@server.websocket("/latency")
def latency(ws: sync.WebSocket) -> None:
    """A ping of our own, and how long its answer took."""
    for _ in ws:
        ws.send(f"{ws.ping() * 1000:.1f} ms")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
