"""Receive a picture into a folder: python examples/picture_client.py [URL [folder]]."""

import asyncio
import json
import sys
from pathlib import Path

import endwell


async def fetch(url: str) -> tuple[str, int, bytes]:
    """Receive the name, the size and the bytes of the picture."""
    async with endwell.connect(url, max_size=16 * 2**20) as ws:
        about = json.loads(await ws.recv())
        data = await ws.recv()
    return about["name"], about["size"], data


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8080/image"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else ".")
    name, size, data = asyncio.run(fetch(url))
    file = folder / Path(name).name  # the peer chose the name: use no folder that it contains
    file.write_bytes(data)
    print(f"saved {file.name}: {len(data)} of {size} bytes")
