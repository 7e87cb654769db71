"""Text that the application gives, as UTF-8. A str of Python, as one from JSON, may have what UTF-8 does not have."""

from __future__ import annotations

__all__ = ["lone_surrogate", "utf8"]


def utf8(text: str, name: str) -> bytes:
    """The UTF-8 of an argument. Raises ValueError for a lone surrogate. ``name`` is that of the argument."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise lone_surrogate(name) from None


def lone_surrogate(name: str) -> ValueError:
    """The error that :func:`utf8` raises."""
    return ValueError(f"{name} contains a lone surrogate, which UTF-8 cannot encode")
