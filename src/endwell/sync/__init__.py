"""The blocking API: the same names as the asyncio API, without ``await``, for any number of threads."""

from .client import connect, reconnecting
from .request import Request
from .server import serving
from .websocket import WebSocket

__all__ = ["Request", "WebSocket", "connect", "reconnecting", "serving"]
