"""Detect a peer that stopped answering, in blocking style: python examples/heartbeat_blocking.py [port [seconds]]."""

import logging
import sys
import time

import endwell
from endwell import sync

seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 15.0
server = endwell.Server(ping_interval=seconds, ping_timeout=seconds)


@server.websocket("/chat")
def chat(ws: sync.WebSocket) -> None:
    """Pings are sent and answered although this handler does not read."""
    while ws.is_open:
        time.sleep(0.1)
    ending = ws.wait_closed()
    if ending.cause is endwell.Cause.KEEPALIVE_TIMEOUT:
        print("no answer:", ending, flush=True)


@server.websocket("/latency")
def latency(ws: sync.WebSocket) -> None:
    """Answer each message with the round-trip time of a ping."""
    for _ in ws:
        ws.send(f"{ws.ping() * 1000:.1f} ms")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
