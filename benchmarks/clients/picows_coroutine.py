"""The coroutine API of picows."""

from __future__ import annotations

import picows.websockets

from .program import run
from .words import echo_with

if __name__ == "__main__":
    run(echo_with(picows.websockets.connect))
