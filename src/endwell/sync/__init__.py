"""The blocking API: the same names as the asyncio API, without ``await``, for any number of threads."""

from .connect import connect, serving
from .reconnecting import reconnecting
from .websocket import WebSocket

__all__ = ["WebSocket", "connect", "reconnecting", "serving"]
