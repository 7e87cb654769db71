"""websockets."""

from __future__ import annotations

import websockets.asyncio.client

from .program import run
from .words import echo_with

if __name__ == "__main__":
    run(echo_with(websockets.asyncio.client.connect))
