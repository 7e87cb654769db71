"""The blocking face: the names of the asyncio one, without ``await``, for any number of threads."""

from .connect import connect, serving
from .websocket import WebSocket

__all__ = ["WebSocket", "connect", "serving"]
