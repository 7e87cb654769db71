"""uvicorn with its class on `wsproto`."""

from .asgi import serving_by
from .program import run

serving = serving_by("wsproto")

if __name__ == "__main__":
    run(serving)
