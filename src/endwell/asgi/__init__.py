"""ASGI applications on endwell."""

from ..errors import ClientDisconnected, StartupFailed

__all__ = ["ClientDisconnected", "StartupFailed"]
