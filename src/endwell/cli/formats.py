"""The input and output formats of ``endwell connect``: text, raw bytes, hexadecimal, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Format"]


class Format:
    """Converts input lines to messages, and messages to output.

    Args:
        binary: Input is sent as binary messages; received binary messages are written as raw bytes.
        hexadecimal: Input is the hexadecimal form of binary messages; every message is shown in that form.
        in_json: Each message and the ending are JSON objects, one on a line.
    """

    def __init__(self, *, binary: bool = False, hexadecimal: bool = False, in_json: bool = False) -> None:
        self._binary = binary
        self._hexadecimal = hexadecimal
        self.in_json = in_json
        #: The required form of the input, for error messages.
        self.wanted = "hexadecimal" if hexadecimal else "UTF-8"

    def message(self, line: bytes) -> str | bytes:
        """Convert ``line``, without its line ending, to a message. Raises ValueError if it is malformed."""
        if self._hexadecimal:
            return bytes.fromhex(line.decode().strip().lower().removeprefix("0x"))
        return line if self._binary else line.decode()

    def text(self, message: str | bytes) -> str:
        """Format ``message`` as text, for a terminal or a line of output."""
        if self.in_json:
            return self.record({"text": message} if isinstance(message, str) else {"binary": message.hex()})
        if self._hexadecimal:
            return (message.encode() if isinstance(message, str) else message).hex()
        return message if isinstance(message, str) else f"0x{message.hex()}"

    def output(self, message: str | bytes) -> str | bytes:
        """Format ``message`` for a pipe: raw bytes, or a line of text."""
        raw = self._binary and not self.in_json and isinstance(message, bytes)
        return message if raw else f"{self.text(message)}\n"

    def record(self, fields: Mapping[str, Any]) -> str:
        """Format ``fields`` as one line of JSON."""
        return json.dumps(fields, ensure_ascii=False)
