"""What the lines of ``endwell connect`` mean: text, bytes, hexadecimal digits, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Format"]


class Format:
    """How input becomes messages, and messages output.

    - ``binary``: input is sent as binary messages; those that come are written as they are.
    - ``hexadecimal``: input is the digits of binary messages; every message is shown as digits.
    - ``in_json``: each message is a JSON object on a line, as is the ending.
    """

    def __init__(self, *, binary: bool = False, hexadecimal: bool = False, in_json: bool = False) -> None:
        self._binary = binary
        self._hexadecimal = hexadecimal
        self.in_json = in_json
        #: What the input has to be.
        self.wanted = "hexadecimal" if hexadecimal else "UTF-8"

    def message(self, line: bytes) -> str | bytes:
        """The message of ``line``, which is without its end. Raises ValueError if it is none."""
        if self._hexadecimal:
            return bytes.fromhex(line.decode().strip().lower().removeprefix("0x"))
        return line if self._binary else line.decode()

    def text(self, message: str | bytes) -> str:
        """``message`` as text, for a terminal and for a line of output."""
        if self.in_json:
            return self.record({"text": message} if isinstance(message, str) else {"binary": message.hex()})
        if self._hexadecimal:
            return (message.encode() if isinstance(message, str) else message).hex()
        return message if isinstance(message, str) else f"0x{message.hex()}"

    def output(self, message: str | bytes) -> str | bytes:
        """What is written for ``message`` to a pipe: bytes go out as they are, text is a line."""
        raw = self._binary and not self.in_json and isinstance(message, bytes)
        return message if raw else f"{self.text(message)}\n"

    def record(self, fields: Mapping[str, Any]) -> str:
        """One line of JSON."""
        return json.dumps(fields, ensure_ascii=False)
