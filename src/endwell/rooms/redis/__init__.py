"""The bus of several machines: Redis, or a server that speaks its protocol."""

from .bus import RedisBus

__all__ = ["RedisBus"]
