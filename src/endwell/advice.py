"""When to come back, said in the reason of a Close: ``server restarting; retry 2-12s``.

A server that closes many connections at once spreads their return with it. The
whole grammar, in ABNF (RFC 5234), where TEXT is for people::

    reason  = [ TEXT "; " ] "retry " seconds "-" seconds "s"
    seconds = 1*5DIGIT

The advice stands at the end, so that the last one counts. The first number is not
above the second. Anything else is a reason like any other: a client that does not
know the grammar, or a server that does not use it, sees an ordinary Close.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["MAX_SECONDS", "MAX_TEXT", "RetryAdvice"]

MAX_SECONDS = 99999
#: Octets of UTF-8: RFC 6455 §5.5 leaves 123 to a reason, and the longest advice takes 20.
MAX_TEXT = 123 - len(f"; retry {MAX_SECONDS}-{MAX_SECONDS}s")

# Linear: it begins with a literal and is bounded. The same expression, with $ for \Z, serves JavaScript.
_GRAMMAR = re.compile(r"(?:^|; )retry ([0-9]{1,5})-([0-9]{1,5})s\Z")


class RetryAdvice(NamedTuple):
    """Come back at a random moment between ``earliest`` and ``latest`` seconds from now."""

    earliest: int
    latest: int

    @classmethod
    def parse(cls, reason: str) -> RetryAdvice | None:
        """The advice in a reason, or None if there is none; never raises."""
        found = _GRAMMAR.search(reason)
        if found is None:
            return None
        advice = cls(int(found[1]), int(found[2]))
        return advice if advice.earliest <= advice.latest else None

    def reason(self, text: str = "") -> str:
        """``text`` with this advice, as the reason of a Close.

        Raises ValueError for a ``text`` above 103 bytes of UTF-8, and for seconds that
        are not in order or above 99999.
        """
        if not 0 <= self.earliest <= self.latest <= MAX_SECONDS:
            raise ValueError(
                f"earliest and latest must be in order and between 0 and {MAX_SECONDS}, not {self}"
            )
        if len(text.encode()) > MAX_TEXT:
            raise ValueError(f"text must be at most {MAX_TEXT} bytes of UTF-8, not {text!r}")
        return f"{text}{'; ' if text else ''}retry {self.earliest:d}-{self.latest:d}s"
