"""What the spans and the events say, in the names of the semantic conventions of OpenTelemetry.

Where these have no name, it is ``endwell.`` and the name of the field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from ..ending import Ending
from ..http import Request

__all__ = ["Attributes", "address_attributes", "ending_attributes", "error_type", "request_attributes"]

Attributes: TypeAlias = dict[str, str | bool | int | float]

#: Maximum characters of a text that a peer has chosen. The SDK has no limit by default.
MAX_TEXT = 256


def address_attributes(name: str, address: object) -> Attributes:
    """An address in the format of the socket module, as the attributes ``NAME.address`` and ``NAME.port``."""
    if not isinstance(address, tuple) or len(address) < 2:
        return {}  # of a Unix socket, whose peer has no name, or not known
    host, port = address[:2]
    return {f"{name}.address": str(host)} | ({f"{name}.port": port} if port else {})


def request_attributes(request: Request, peer: object, local: object) -> Attributes:
    """The request of an opening handshake. Neither the query nor a token nor a cookie is among them."""
    attributes: Attributes = {
        "http.request.method": "GET",
        "network.protocol.name": "http",
        "network.protocol.version": request.version,
        "url.path": request.raw_path[:MAX_TEXT],
        "url.scheme": "wss" if request.secure else "ws",
        **address_attributes("network.peer", peer),
        **address_attributes("client", request.remote_address),
        **address_attributes("server", local),
    }
    if (agent := request.headers.get("User-Agent")) is not None:
        attributes["user_agent.original"] = agent[:MAX_TEXT]
    if request.route is not None:
        attributes["http.route"] = request.route
    return attributes


def error_type(ending: Ending) -> str | None:
    """The value of ``error.type``: the cause; None for an ordinary ending."""
    return None if ending.ok else ending.cause.value


def ending_attributes(ending: Ending) -> Attributes:
    """Every field of an ending that has a value."""
    attributes: Attributes = {"endwell.ok": ending.ok}
    if (error := error_type(ending)) is not None:
        attributes["error.type"] = error
    if (exception := ending.exception) is not None:
        attributes["exception.type"] = type(exception).__qualname__
        attributes["exception.message"] = str(exception)[:MAX_TEXT]
    for name, value in ending.as_dict().items():
        if name not in ("exception", "text"):  # the text is the body of the event
            _add(attributes, f"endwell.{name}", value)
    return attributes


def _add(attributes: Attributes, name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _add(attributes, f"{name}.{key}", item)
    elif isinstance(value, str | bool | int | float):
        attributes[name] = value
    elif value is not None:
        attributes[name] = json.dumps(value)
