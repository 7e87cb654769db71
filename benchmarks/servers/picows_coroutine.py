"""The coroutine API of picows."""

from __future__ import annotations

import picows.websockets

from .program import run
from .websockets import serving_with

serving = serving_with(picows.websockets)

if __name__ == "__main__":
    run(serving)
