"""How what is awaited hands over its value."""

from __future__ import annotations

__all__ = ["hasten"]


def hasten() -> None:
    """Let ``Receive`` and ``Done`` return their value as a coroutine does.

    Here there is nothing to do: a value travels in a StopIteration. Compiled,
    ``_sending.pyx`` fills the slot that coroutines have for it, and which Cython has
    no name for; it saves an exception for each message.
    """
