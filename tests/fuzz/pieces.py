"""What the fuzz targets share: octets in pieces, and errors as text."""

from __future__ import annotations

from itertools import pairwise

__all__ = ["reads", "said"]


def reads(data: bytes, skipped: int, cuts: list[int]) -> list[bytes]:
    """``data`` after the octets that select options, in pieces; ``cuts`` count from its start."""
    edges = [skipped, *(cut for cut in cuts if cut > skipped), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def said(error: Exception | None) -> str:
    """An error as text, which must contain no control characters for a log or a header."""
    if error is None:
        return ""
    assert str(error).isprintable(), repr(error)
    assert len(str(error)) < 300
    return f"{type(error).__name__}: {error}"
