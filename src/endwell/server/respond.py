"""From the return value of an HTTP handler to a response."""

from __future__ import annotations

import json
from collections.abc import Callable

from ..http import Headers, Response

__all__ = ["response_from"]


def response_from(returned: object, handler: Callable[..., object]) -> Response:
    """Convert the return value of an HTTP handler into a Response.

    A Response is returned unchanged. A string becomes ``text/plain`` (use :meth:`Response.html` for a
    page), bytes become ``application/octet-stream``, a dict or list becomes JSON, and None becomes
    204 No Content.

    Raises:
        TypeError: The value has another type, or JSON cannot express it.
        ValueError: The status is not a final one (200 to 599).
    """
    match returned:
        case Response():
            if not 200 <= returned.status <= 599:
                raise ValueError(
                    f"{_name(handler)} returned status {returned.status}; a final status is from 200 to 599"
                )
            return returned
        case str():
            return Response.text(returned)
        case bytes():
            return Response(200, Headers({"Content-Type": "application/octet-stream"}), returned)
        case dict() | list():
            return Response(200, Headers({"Content-Type": "application/json"}), _json(returned, handler))
        case None:
            return Response(204)
    raise TypeError(
        f"{_name(handler)} returned {type(returned).__name__}, not Response, str, bytes, dict, list or None"
    )


def _json(value: object, handler: Callable[..., object]) -> bytes:
    try:
        # RFC 8259 §6: "Numeric values that cannot be represented in the grammar below
        # (such as Infinity and NaN) are not permitted."
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"{_name(handler)} returned a value that JSON cannot express: {error}") from error


def _name(handler: Callable[..., object]) -> str:
    return getattr(handler, "__qualname__", repr(handler))
