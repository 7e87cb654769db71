"""A page whose connection ends when its user leaves: python examples/live.py [port]."""

import logging
import sys

import endwell
from endwell import sync

PAGE = """<!doctype html><title>live</title><p></p><script>
let ws;

function connect() {
  ws = new WebSocket(`ws://${location.host}/live`);
  ws.onmessage = (event) => { document.querySelector("p").textContent = event.data; };
}

addEventListener("pagehide", () => ws.close(1000, "left"));
addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
connect();
</script>"""
server = endwell.Server()


@server.get("/")
def index(request: endwell.Request) -> endwell.Response:
    """The page."""
    return endwell.Response.html(PAGE)


@server.websocket("/live")
def live(ws: sync.WebSocket) -> None:
    """Whatever happens to the page, its ending is printed."""
    ws.on_close(lambda ending: print("left:", ending, flush=True))
    for message in ws:
        ws.send(message)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
