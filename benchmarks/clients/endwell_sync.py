"""The blocking face of endwell."""

from __future__ import annotations

import endwell.sync

from .program import run_blocking
from .words import blocking_echo_with

if __name__ == "__main__":
    run_blocking(blocking_echo_with(endwell.sync.connect))
