"""The blocking face: the names of the asyncio one, without ``await``, for any number of threads."""

from .connect import connect, serving
from .reconnecting import reconnecting
from .websocket import WebSocket

__all__ = ["WebSocket", "connect", "reconnecting", "serving"]
