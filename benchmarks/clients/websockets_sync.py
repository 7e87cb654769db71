"""The threading implementation of websockets."""

from __future__ import annotations

import websockets.sync.client

from .program import run_blocking
from .words import blocking_echo_with

if __name__ == "__main__":
    run_blocking(blocking_echo_with(websockets.sync.client.connect))
