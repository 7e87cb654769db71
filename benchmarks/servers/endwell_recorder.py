"""endwell with a flight recorder for each connection."""

from __future__ import annotations

from .endwell import server, serving
from .program import run

server.options = server.options.replace(recorder=True)

if __name__ == "__main__":
    run(serving)
