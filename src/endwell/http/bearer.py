"""A bearer token in the subprotocols of an opening handshake: two names, which are offered together.

The API of browsers cannot set the field Authorization. The only field that a page can fill is
Sec-WebSocket-Protocol. The client offers :data:`MARK`, and ``bearer.`` with the token in base64url (RFC 4648
§5) without padding. The mark alone, beside ``Authorization: Bearer``, says that the client can send new tokens.

Precedent: ``base64url.bearer.authorization.k8s.io.`` of Kubernetes, and ``base64url.bearer.phx.`` of Phoenix.
"""

from __future__ import annotations

import re
from binascii import a2b_base64

__all__ = [
    "FIELD",
    "MARK",
    "MAX_RENEWAL",
    "MAX_TOKEN",
    "PREFIX",
    "RENEWAL",
    "authorization_bearer",
    "is_token",
    "split_offer",
]

FIELD = "Sec-WebSocket-Protocol"
#: The subprotocol that announces the token. The server answers with it if it selects no other one.
MARK = "endwell.bearer"
#: Followed by the encoded token.
PREFIX = "bearer."
#: The start of a text message with a new token on an open connection; see ``protocol/renewal.py``. U+001A is SUB,
#: "substitute" in ASCII.
RENEWAL = "\x1abearer "
#: Characters of a token. Precedent: nginx and Apache limit a header line to 8 KiB.
MAX_TOKEN = 8192
#: Bytes of the longest message with a token.
MAX_RENEWAL = len(RENEWAL) + MAX_TOKEN

# RFC 6750 §2.1: the syntax of a token, b64token, has only such characters. A few more are harmless.
_TOKEN = re.compile(rf"[!-~]{{1,{MAX_TOKEN}}}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


def is_token(value: str) -> bool:
    """Whether ``value`` can be a token: 1 to ``MAX_TOKEN`` printable ASCII characters without spaces."""
    return _TOKEN.fullmatch(value) is not None


def split_offer(names: list[str]) -> tuple[list[str], str | None]:
    """The subprotocols without the pair, and the token; None for :data:`MARK` alone.

    The list must contain :data:`MARK`. Raises ValueError for a malformed pair; the message does not have the
    token.
    """
    encoded = [name for name in names if name.startswith(PREFIX)]
    if len(encoded) > 1 or names.count(MARK) > 1:
        raise ValueError(f"the subprotocols {MARK} and {PREFIX}... must not be repeated")
    rest = [name for name in names if name != MARK and not name.startswith(PREFIX)]
    return rest, _decoded(encoded[0].removeprefix(PREFIX)) if encoded else None


def _decoded(encoded: str) -> str:
    # No encoding has 1 character more than a multiple of 4.
    if not _BASE64URL.fullmatch(encoded) or len(encoded) % 4 == 1:
        raise ValueError(f"the subprotocol {PREFIX}... is not base64url without padding")
    if len(encoded) > MAX_TOKEN * 4 // 3 + 2:
        raise ValueError(f"the token in the subprotocol {PREFIX}... has more than {MAX_TOKEN} characters")
    standard = encoded.replace("-", "+").replace("_", "/") + "=" * (-len(encoded) % 4)
    try:
        token = a2b_base64(standard).decode()
    except UnicodeDecodeError:
        # Without its cause, which contains the bytes.
        raise ValueError(f"the token in the subprotocol {PREFIX}... is not UTF-8") from None
    if not is_token(token):
        raise ValueError(
            f"the token in the subprotocol {PREFIX}... must be 1 to {MAX_TOKEN} printable ASCII characters "
            "without spaces"
        )
    return token


def authorization_bearer(fields: list[str]) -> str | None:
    """The token of ``Authorization: Bearer`` (RFC 6750 §2.1), from the values of that field; None without one."""
    if len(fields) != 1:
        return None
    # RFC 9110 §11.1: the scheme is case-insensitive.
    scheme, _, token = fields[0].partition(" ")
    token = token.strip(" ")
    return token if scheme.lower() == "bearer" and is_token(token) else None
