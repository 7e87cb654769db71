"""Send a message to an echo server, in blocking style: python examples/echo_client_blocking.py [URL]."""

import sys

import endwell
from endwell import sync

url = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/echo"
try:
    with sync.connect(url) as ws:
        ws.send("Hello, WebSocket!")
        print("received:", ws.recv())
except endwell.HandshakeError as exc:
    sys.exit(f"failed to connect: {exc}")
print(ws.ending)
