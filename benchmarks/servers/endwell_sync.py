"""The blocking face of endwell: a plain function as the handler."""

from __future__ import annotations

import endwell

from .endwell import serving_by
from .program import run

server = endwell.Server()


@server.websocket("/echo")
def echo(ws: endwell.sync.WebSocket) -> None:
    for message in ws:
        ws.send(message)


serving = serving_by(server)

if __name__ == "__main__":
    run(serving)
