"""A read in portions: for codecs that are not compiled.

An old protocol's frame may have two octets, so one read of 256 KiB may hold 131,072 of them, and
nobody else is served while they are looked at.
"""

from __future__ import annotations

from typing import Any

from .codec import Codec

__all__ = ["Portioned"]

#: Octets looked at in one call. As many frames as they can hold take 10 ms, which is also
#: how long a connection may read in one turn of the loop.
PORTION = 2**14


class Portioned(Codec):
    """A codec that looks at no more than ``PORTION`` octets at a time: see :attr:`Codec.has_unparsed`."""

    def __init__(self, client: bool, max_size: int | None) -> None:
        super().__init__(client, max_size)
        self._rest = b""
        # Whether a part of the last portion is left.
        self._left_over = False

    def feed(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """See :meth:`Codec.feed`."""
        if self._rest:
            data = bytearray(self._rest) + data[:end]
            end = len(data)
        portion = 0 if self._left_over else min(end, PORTION)
        self._rest = bytes(data[portion:end])
        self.has_unparsed = False
        try:
            self.take(data, portion, messages)
        finally:
            self._left_over = self.has_unparsed
            self.has_unparsed = self._left_over or bool(self._rest)

    def take(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """What :meth:`feed` is of another codec, for a portion."""
        super().feed(data, end, messages)
