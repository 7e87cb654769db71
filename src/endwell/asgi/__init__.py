"""ASGI applications on endwell."""

from ..errors import ClientDisconnected

__all__ = ["ClientDisconnected"]
