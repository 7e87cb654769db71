"""uvicorn with endwell's WebSocket class."""

from .asgi import serving_by
from .program import run

serving = serving_by("endwell.uvicorn:Protocol")

if __name__ == "__main__":
    run(serving)
