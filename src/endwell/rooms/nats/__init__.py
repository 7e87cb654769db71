"""The bus of several machines, by NATS: one of the processes numbers and keeps, NATS carries."""

from .bus import NatsBus

__all__ = ["NatsBus"]
