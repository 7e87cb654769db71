"""Show who is connected; a reload does not count as leaving: python examples/presence.py [port]."""

import logging
import sys
from asyncio import ensure_future
from contextlib import suppress

import endwell

PAGE = """<!doctype html><title>Who is here</title><p id="here"></p><script type="module">
import { ReconnectingWebSocket } from "/endwell.js";
const name = sessionStorage.name ??= prompt("Your name?") || "somebody";
const ws = new ReconnectingWebSocket(`/here?name=${encodeURIComponent(name)}`);
ws.onmessage = ({ data }) => { here.textContent = data; };
ws.onending = ({ ending, stop }) => { if (stop) here.textContent = ending.reason; };
</script>"""
server = endwell.Server()
server.browser_module()
server.get("/")(lambda request: endwell.Response.html(PAGE))
server.sessions.left(lambda name, ending: ensure_future(tell()))


async def tell() -> None:
    """Send the names to every user."""
    for ws in server.sessions.values():
        with suppress(endwell.ConnectionClosed):
            await ws.send("here: " + ", ".join(sorted(server.sessions.present)))


@server.websocket("/here")
async def here(ws: endwell.WebSocket) -> None:
    """Join the sessions until the connection ends."""
    server.sessions.join(ws.request.query.get("name", "somebody"), ws)
    await tell()
    await ws.closed


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
