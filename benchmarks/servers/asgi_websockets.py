"""uvicorn with its class on `websockets`."""

from .asgi import serving_by
from .program import run

serving = serving_by("websockets-sansio")

if __name__ == "__main__":
    run(serving)
