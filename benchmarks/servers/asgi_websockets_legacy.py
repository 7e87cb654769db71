"""uvicorn with its class on the legacy server of `websockets`."""

from .asgi import serving_by
from .program import run

serving = serving_by("websockets")

if __name__ == "__main__":
    run(serving)
