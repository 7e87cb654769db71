"""What an HTTP route answers: from a handler's return value to a complete response, and files."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from mimetypes import MimeTypes
from pathlib import Path
from typing import Any

from ..errors import NotFound
from ..http import Headers, Request, Response

__all__ = ["MAX_FILE", "browser_module", "complete", "response_from", "static"]

#: The module for pages, which comes with the package.
BROWSER_MODULE = Path(__file__).parent.parent / "browser" / "endwell.js"

#: Bytes of the largest file that :func:`static` serves. A file is read whole, once
#: for each request, which suits the pages beside a WebSocket; what is bigger belongs
#: behind a proxy, and would cost this much memory for each client that asks for it.
MAX_FILE = 16 * 2**20

# What follows from the body and from how the connection goes on is not the handler's to say.
_FRAMING = frozenset({"connection", "content-length", "transfer-encoding"})

# Without the system's tables, so that a file has the same type on every machine; and with
# what the standard library learns after Python 3.11 (RFC 9239 §6 for the first two).
_TYPES = MimeTypes()
_TYPES.add_type("text/javascript", ".js")
_TYPES.add_type("text/javascript", ".mjs")
_TYPES.add_type("font/woff2", ".woff2")
_TYPES.add_type("image/webp", ".webp")


def response_from(returned: object, handler: Callable[..., object]) -> Response:
    """The answer that an HTTP handler means by what it returned.

    A Response is taken as it is, text is plain text (:meth:`Response.html` makes a
    page), bytes are an ``application/octet-stream``, a dict or list is JSON, None is
    204 No Content.

    Raises TypeError for anything else and ValueError for a status that is not a
    final one (200 to 599); both name the handler.
    """
    match returned:
        case Response():
            if not 200 <= returned.status <= 599:
                raise ValueError(
                    f"{_name(handler)} answered with status {returned.status}, which ends no request"
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
        raise TypeError(f"{_name(handler)} returned what JSON cannot express: {error}") from error


def _name(handler: Callable[..., object]) -> str:
    return getattr(handler, "__qualname__", repr(handler))


def complete(response: Response, request: Request | None, now: float) -> Response:
    """``response`` with the fields that HTTP asks for and without the body that it forbids.

    ``request`` is None if none could be parsed; ``now`` is ``time.time()``. The
    connection is never kept alive, so that bytes sent for a WebSocket that was
    refused are never parsed as a request (RFC 9931).
    """
    headers = Headers(field for field in response.headers if field[0].lower() not in _FRAMING)
    if "Date" not in headers:
        # RFC 9110 §6.6.1: "An origin server with a clock (...) MUST generate a Date header
        # field in all 2xx (Successful), 3xx (Redirection), and 4xx (Client Error)
        # responses".
        headers.add("Date", formatdate(now, usegmt=True))
    # RFC 9110 §7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option".
    headers.add("Connection", "close, Upgrade" if "Upgrade" in headers else "close")
    # RFC 9110 §15.3.5 and §15.4.5: 204 and 304 are "terminated by the end of the header
    # section"; §15.3.6: "a server MUST NOT generate content in a 205 response".
    body = b"" if response.status in (204, 205, 304) else response.body
    # §8.6: "A server MUST NOT send a Content-Length header field in any response with
    # a status code of 1xx (Informational) or 204 (No Content)"; in a 304 it would have
    # to be the length of the 200.
    if response.status not in (204, 304):
        headers.add("Content-Length", str(len(body)))
    # §9.3.2: "The HEAD method is identical to GET except that the server MUST NOT send
    # content in the response."
    if request is not None and request.method == "HEAD":
        body = b""
    return Response(response.status, headers, body)


def static(folder: str | os.PathLike[str]) -> Callable[[Request, str], Coroutine[Any, Any, Response]]:
    """A handler that serves the files of ``folder``, for a route that ends in ``{path:path}``.

    A directory is answered with its ``index.html``. Names that start with a dot, and
    links that lead out of the folder, are not there. A file above :data:`MAX_FILE`
    raises ValueError when it is asked for, which a server answers with 500 and logs.

    Raises OSError if the folder is missing.
    """
    root = Path(folder).resolve(strict=True)
    if not root.is_dir():
        raise NotADirectoryError(f"{os.fspath(folder)!r} is not a folder")

    async def serve(request: Request, path: str) -> Response:
        # A slow disk keeps one thread waiting, not every connection of the loop.
        return await asyncio.to_thread(_serve, root, request, path)

    return serve


async def browser_module(request: Request) -> Response:
    """The handler that serves ``endwell.js``."""
    response = await asyncio.to_thread(_file_response, BROWSER_MODULE, request)
    # RFC 9111 §4.2.2: without it a browser may guess how long the module is fresh, and go on
    # with the old one long after the server has a new one.
    response.headers.add("Cache-Control", "no-cache")
    # It is public; a page of another origin that may connect here may have it, too.
    response.headers.add("Access-Control-Allow-Origin", "*")
    return response


def _serve(root: Path, request: Request, path: str) -> Response:
    file = _inside(root, path)
    if file is not None and file.is_dir():
        slash = "/" if path and not path.endswith("/") else ""
        file = _inside(root, f"{path}{slash}index.html")
        if file is not None and slash:
            # Without it, the page's relative links would miss the directory.
            return Response.redirect(f"./{request.raw_path.rpartition('/')[2]}/", 301)
    elif path.endswith("/"):
        file = None
    # Not exists(): opening a FIFO would wait for its writer.
    if file is None or not file.is_file():
        return NotFound("there is no such file").response()
    return _file_response(file, request)


def _inside(root: Path, path: str) -> Path | None:
    """What ``path`` names below ``root``, links followed; None if it is not there or not to be seen."""
    # An empty part begins an absolute path; a dot begins ".", "..", and what is hidden.
    *folders, name = path.split("/")
    if not all(folders) or any(part.startswith(".") for part in (*folders, name)):
        return None
    try:
        found = root.joinpath(*folders, name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # missing or too long; a loop of links; NUL
        return None
    if not found.is_relative_to(root) or any(part.startswith(".") for part in found.relative_to(root).parts):
        return None
    return found


def _file_response(file: Path, request: Request) -> Response:
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        body = stream.read(MAX_FILE + 1)
    if len(body) > MAX_FILE:
        raise ValueError(f"{str(file)!r} is larger than {MAX_FILE} bytes: let a proxy serve it")
    # Precedent: nginx makes its ETag of these two.
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    # RFC 9110 §8.8.2.1: an origin server "MUST NOT generate a Last-Modified date that
    # is later than the server's time of message origination".
    modified = formatdate(min(status.st_mtime, time.time()), usegmt=True)
    headers = Headers(
        {
            "ETag": etag,
            "Last-Modified": modified,
            # A browser that guesses a type could run an uploaded text as a script.
            "X-Content-Type-Options": "nosniff",
        }
    )
    if _is_fresh(request.headers, etag, modified):
        return Response(304, headers)
    headers.add("Content-Type", _content_type(file.name))
    return Response(200, headers, body)


def _is_fresh(headers: Headers, etag: str, modified: str) -> bool:
    """Whether the client has this version of the file already."""
    if "If-None-Match" in headers:
        # RFC 9110 §13.1.2: "A recipient MUST use the weak comparison function"; and
        # §13.1.3: "MUST ignore If-Modified-Since if the request contains an
        # If-None-Match header field".
        tags = [tag.removeprefix("W/") for tag in headers.list_of("If-None-Match")]
        return etag in tags or tags == ["*"]
    # Compared as text: a client sends back what it got. Precedent: nginx's
    # "if_modified_since exact", its default.
    return headers.get("If-Modified-Since") == modified


def _content_type(name: str) -> str:
    kind, encoding = _TYPES.guess_type(name)
    if kind is None or encoding is not None:  # a .tar.gz is not the tar that its type would say
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
