"""A chat with a dashboard for operators: python examples/operate.py [port], then endwell top 127.0.0.1:8080.

The page is at http://127.0.0.1:8080/_endwell/. With OPERATOR_TOKEN in the environment, only clients with this token
get it, also from other machines: ENDWELL_TOKEN=... endwell top http://host:8080
"""

import hmac
import logging
import os
import sys

import endwell

server = endwell.Server()
TOKEN = os.environ.get("OPERATOR_TOKEN")


def is_operator(request: endwell.Request) -> bool:
    """Whether a client may see the dashboard, and act."""
    return hmac.compare_digest(request.bearer or "", TOKEN or "")


server.dashboard(authorize=is_operator if TOKEN else None)


@server.websocket("/chat/{room}")
async def chat(ws: endwell.WebSocket, room: str) -> None:
    """Publish what a member sends to its room."""
    server.sessions.join(ws.request.query.get("user", "somebody"), ws)
    async with server.rooms[room].join(ws) as membership:
        async for message in ws:
            await membership.room.publish(message)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
