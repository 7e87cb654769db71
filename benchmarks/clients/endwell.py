"""endwell."""

from __future__ import annotations

import endwell

from .program import run
from .words import echo_with

if __name__ == "__main__":
    run(echo_with(endwell.connect))
