"""Parsing in portions, for codecs that are not compiled.

A frame of an old protocol may have two bytes, so one read of 256 KiB may hold 131,072 frames. Without
portions, the loop could serve no other connection while it parses them.
"""

from __future__ import annotations

from typing import Any

from .codec import Codec

__all__ = ["Portioned"]

#: Bytes that one call parses. The frames that fit into them take at most 10 ms, which is also the time that a
#: connection may read in one iteration of the loop.
PORTION = 2**14


class Portioned(Codec):
    """A codec that parses at most ``PORTION`` bytes in one call: see :attr:`Codec.has_unparsed`."""

    def __init__(self, client: bool, max_size: int | None) -> None:
        super().__init__(client, max_size)
        self._rest = b""
        # Whether the base class has not parsed all of the last portion.
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
            self.feed_portion(data, portion, messages)
        finally:
            self._left_over = self.has_unparsed
            self.has_unparsed = self._left_over or bool(self._rest)

    def feed_portion(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """Parse one portion, as :meth:`Codec.feed` does."""
        super().feed(data, end, messages)
