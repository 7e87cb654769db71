"""When to reconnect, written in the reason of a Close: `server restarting; retry 2-12s`.

A server that closes many connections at once uses it to spread the reconnections over time. The grammar in
ABNF (RFC 5234), where TEXT is for people:

    reason  = [ TEXT "; " ] "retry " seconds "-" seconds "s"
    seconds = 1*5DIGIT

The advice is the last part of the reason. The first number is at most the second. Any other reason has no
advice. A client that does not know the grammar sees an ordinary Close.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .text import utf8

__all__ = ["MAX_SECONDS", "MAX_TEXT", "RetryAdvice"]

MAX_SECONDS = 99999
#: Bytes of UTF-8. RFC 6455 §5.5 leaves 123 bytes for a reason, and the longest advice takes 20.
MAX_TEXT = 123 - len(f"; retry {MAX_SECONDS}-{MAX_SECONDS}s")

# It matches in linear time, because it begins with a literal and is bounded. endwell.js uses the same
# expression with $ instead of \Z.
_GRAMMAR = re.compile(r"(?:^|; )retry ([0-9]{1,5})-([0-9]{1,5})s\Z")


class RetryAdvice(NamedTuple):
    """A server's advice to reconnect at a random time between `earliest` and `latest`.

    Example:
        ```python
        from endwell import RetryAdvice

        reason = RetryAdvice(2, 12).reason("server restarting")
        print(reason)
        print(RetryAdvice.parse(reason))
        ```
    """

    #: Shortest wait, in seconds.
    earliest: int
    #: Longest wait, in seconds.
    latest: int

    @classmethod
    def parse(cls, reason: str) -> RetryAdvice | None:
        """Read the advice in the reason of a Close. Never raises.

        Args:
            reason: The reason of the Close.

        Returns:
            The advice; None if the reason has none.
        """
        found = _GRAMMAR.search(reason)
        if found is None:
            return None
        advice = cls(int(found[1]), int(found[2]))
        return advice if advice.earliest <= advice.latest else None

    def reason(self, text: str = "") -> str:
        """The reason of a Close with this advice.

        Args:
            text: Text for people, before the advice; at most 103 bytes of UTF-8.

        Raises:
            ValueError: `text` is too long or contains a lone surrogate, `earliest` is above `latest`, or a number
                is outside 0 to 99999.
        """
        if not 0 <= self.earliest <= self.latest <= MAX_SECONDS:
            raise ValueError(
                f"earliest and latest must be in order and between 0 and {MAX_SECONDS}, not {self}"
            )
        if len(utf8(text, "text")) > MAX_TEXT:
            raise ValueError(f"text must be at most {MAX_TEXT} bytes of UTF-8, not {text!r}")
        return f"{text}{'; ' if text else ''}retry {self.earliest:d}-{self.latest:d}s"
