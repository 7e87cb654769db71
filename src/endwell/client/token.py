"""The bearer token of a client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from ..http.accept import check_until
from ..http.bearer import MAX_TOKEN, is_token

__all__ = ["Token", "TokenArgument", "check_token"]


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and the time at which it expires: what the function ``token`` of a client returns.

    ``repr()`` hides the value.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``value`` is not 1 to 8192 printable ASCII characters without spaces, or ``until`` has no
            time zone.

    Example:
        ```python
        from datetime import UTC, datetime, timedelta
        import endwell

        token = endwell.Token("eyJhbGciOi", until=datetime.now(UTC) + timedelta(minutes=15))
        print(token.until)
        ```
    """

    #: The token.
    value: str = field(repr=False)
    #: When it expires, with a time zone. None (default): not known, so that it is not renewed while a
    #: connection is open.
    until: datetime | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.value, str):
            raise TypeError(f"a token must be a str, not {type(self.value).__name__}")
        if not is_token(self.value):  # the message does not show it
            raise ValueError(
                f"a token must be 1 to {MAX_TOKEN} printable ASCII characters without spaces (RFC 6750 §2.1)"
            )
        check_until(self.until)


#: The argument ``token`` of a client.
TokenArgument: TypeAlias = str | Token | Callable[[], str | Token | Awaitable[str | Token]]


def check_token(token: str | Token) -> Token:
    """Return ``token`` as a Token. Raises TypeError and ValueError, whose messages do not show the value."""
    if isinstance(token, str):
        return Token(token)
    if not isinstance(token, Token):
        raise TypeError(f"token must be a str, a Token or a function, not {type(token).__name__}")
    return token
