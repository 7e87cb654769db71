"""The bus of several machines: Redis, or a server that speaks its protocol."""

from .bus import RedisBus
from .cluster import ClusterBus

__all__ = ["ClusterBus", "RedisBus"]
