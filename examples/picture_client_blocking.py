"""Receive a picture into a folder, in blocking style: python examples/picture_client_blocking.py [URL [folder]]."""

import json
import sys
from pathlib import Path

from endwell import sync

url = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/image"
folder = Path(sys.argv[2] if len(sys.argv) > 2 else ".")

with sync.connect(url, max_size=16 * 2**20) as ws:
    about = json.loads(ws.recv())
    data = ws.recv()

file = folder / Path(about["name"]).name  # the peer chose the name: use no folder that it contains
file.write_bytes(data)
print(f"saved {file.name}: {len(data)} of {about['size']} bytes")
