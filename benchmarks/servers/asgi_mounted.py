"""endwell's own server with a raw ASGI application."""

import endwell

from .asgi import app
from .endwell import serving_by
from .program import run

server = endwell.Server(ping_interval=None)  # under valgrind, a row may take longer
server.mount("/", app)
serving = serving_by(server)

if __name__ == "__main__":
    run(serving)
