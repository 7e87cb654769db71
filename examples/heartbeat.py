"""Detect a peer that stopped answering: python examples/heartbeat.py [port [seconds]]."""

import logging
import sys

import endwell

seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 15.0
server = endwell.Server(ping_interval=seconds, ping_timeout=seconds)


@server.websocket("/chat")
async def chat(ws: endwell.WebSocket) -> None:
    """Pings are sent and answered although this handler does not read."""
    ending = await ws.wait_closed()
    if ending.cause is endwell.Cause.KEEPALIVE_TIMEOUT:
        print("no answer:", ending, flush=True)


@server.websocket("/latency")
async def latency(ws: endwell.WebSocket) -> None:
    """Answer each message with the round-trip time of a ping."""
    async for _ in ws:
        await ws.send(f"{await ws.ping() * 1000:.1f} ms")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
