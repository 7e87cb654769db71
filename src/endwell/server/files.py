"""HTTP handlers for static files: a folder, and the browser module ``endwell.js``."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from email.utils import formatdate
from mimetypes import MimeTypes
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import NotFound, RangeNotSatisfiable
from ..http import Headers, Request, Response

__all__ = ["BROWSER_MODULE", "MAX_FILE", "browser_module", "file_response", "slash", "static"]

#: Calls a function in a thread, so that a slow disk does not block the loop.
Run: TypeAlias = Callable[..., Awaitable[Response]]

#: The browser module, which is part of the package.
BROWSER_MODULE = Path(__file__).parent.parent / "browser" / "endwell.js"

#: Maximum bytes of a file, or of a range of a file, in one response. A response is read into memory as a
#: whole, once for each request. That suits the pages beside a WebSocket; a proxy should serve larger files.
MAX_FILE = 16 * 2**20

# Does not read the system's tables, so that a file has the same type on every machine. The added types
# are in the standard library only after Python 3.11 (RFC 9239 §6 for the first two).
_TYPES = MimeTypes()
_TYPES.add_type("text/javascript", ".js")
_TYPES.add_type("text/javascript", ".mjs")
_TYPES.add_type("font/woff2", ".woff2")
_TYPES.add_type("image/webp", ".webp")

#: RFC 9110 §14.1.2: first-pos "-" [ last-pos ], or "-" suffix-length. Only a single range matches.
_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))", re.ASCII | re.IGNORECASE)


def static(
    folder: str | os.PathLike[str], run: Run, *, follow_links: bool = False
) -> Callable[[Request, str], Coroutine[Any, Any, Response]]:
    """Return a handler that serves the files of ``folder``, for a route that ends in ``{path:path}``.

    A request for a directory gets its ``index.html``. Names that start with a dot are not served. A
    symbolic link is followed if its target is in the folder; with ``follow_links``, it is always followed.
    A request for a file that does not exist raises NotFound, one for a range that the file does not have
    raises RangeNotSatisfiable, and the server refuses both. A request for a file above :data:`MAX_FILE` raises
    ValueError; the server logs it and answers with 500.

    Raises:
        OSError: The folder does not exist.
    """
    # Do not resolve the folder here: if it is a symbolic link, each request uses the link's current target.
    root = Path(os.path.abspath(folder))
    if not root.resolve(strict=True).is_dir():
        raise NotADirectoryError(f"{os.fspath(folder)!r} is not a folder")

    async def serve(request: Request, path: str) -> Response:
        return await run(_serve, root, request, path, follow_links)

    return serve


async def slash(request: Request) -> Response:
    """Redirect a folder's path to the path with a trailing slash, which the page's relative links need."""
    return _with_slash(request)


def browser_module(run: Run) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return a handler that serves ``endwell.js``."""

    async def serve(request: Request) -> Response:
        response = await run(file_response, BROWSER_MODULE, request)
        # The module is public, and pages of other origins may connect here, too.
        response.headers.add("Access-Control-Allow-Origin", "*")
        return response

    return serve


def _serve(root: Path, request: Request, path: str, follow_links: bool) -> Response:
    for _ in range(3):
        # Try again if the file was deleted before it was found or opened. A Kubernetes ConfigMap does that
        # while it is updated: the link has a new target then.
        found = _find(root, request, path, follow_links)
        if isinstance(found, Response):
            return found
        if found is not None:
            with suppress(FileNotFoundError):
                return file_response(found, request)
    # Raised, so that the server logs it and calls on_refused, as for a path without a route.
    raise NotFound("there is no such file")


def _find(root: Path, request: Request, path: str, follow_links: bool) -> Path | Response | None:
    """Return the file that ``path`` names, or a redirect to it; None if there is no such file."""
    file = _inside(root, path, follow_links)
    if file is not None and file.is_dir():
        named = bool(path) and not path.endswith("/")
        file = _inside(root, f"{path}/index.html" if named else f"{path}index.html", follow_links)
        if file is not None and named:
            return _with_slash(request)
    elif path.endswith("/"):
        file = None
    # is_file() instead of exists(), because opening a FIFO blocks until it has a writer.
    return None if file is None or not file.is_file() else file


def _with_slash(request: Request) -> Response:
    path, mark, query = request.target.partition("?")
    return Response.redirect(f"./{path.rpartition('/')[2]}/{mark}{query}", 301)


def _inside(root: Path, path: str, follow_links: bool) -> Path | None:
    """Return the resolved path of ``path`` below ``root``; None if it does not exist or may not be served."""
    # An empty part would start an absolute path. A dot starts ".", ".." and hidden names. The target of a
    # link may be hidden, because in a Kubernetes ConfigMap each file is a link into "..data".
    *folders, name = path.split("/")
    if not all(folders) or any(part.startswith(".") for part in (*folders, name)):
        return None
    try:
        found = root.joinpath(*folders, name).resolve(strict=True)
        within = follow_links or found.is_relative_to(root.resolve(strict=True))
    except (OSError, RuntimeError, ValueError):  # missing or too long; a link loop; a null byte
        return None
    return found if within else None


def file_response(file: Path, request: Request) -> Response:
    """The response with a file, or 304 if the client has it already; blocks."""
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        # Precedent: nginx builds its ETag from the same two values.
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        # RFC 9110 §8.8.2.1: an origin server "MUST NOT generate a Last-Modified date that
        # is later than the server's time of message origination".
        modified = formatdate(min(status.st_mtime, time.time()), usegmt=True)
        headers = Headers(
            {
                "ETag": etag,
                "Last-Modified": modified,
                # RFC 9111 §4.2.2: without this field, a browser may estimate how long a file is fresh,
                # and use the old file long after it has changed.
                "Cache-Control": "no-cache",
                # A browser that guesses the content type could run an uploaded text as a script.
                "X-Content-Type-Options": "nosniff",
            }
        )
        if _is_fresh(request.headers, etag, modified):
            return Response(304, headers)
        headers.add("Accept-Ranges", "bytes")
        part = _part(request, status.st_size, etag, modified)
        wanted = range(status.st_size) if part is None else part
        if len(wanted) > MAX_FILE:
            raise ValueError(f"{str(file)!r} is larger than {MAX_FILE} bytes: use a proxy to serve it")
        stream.seek(wanted.start)
        # The size of a file that is not on a disk, such as one in /proc, is unknown: st_size is 0.
        body = stream.read(MAX_FILE if part is None else len(part))
    if part is not None and not body:
        headers.add("Content-Range", f"bytes */{status.st_size}")
        # Raised for the same reason as NotFound.
        raise RangeNotSatisfiable("the file has no such range", headers=headers)
    headers.add("Content-Type", _content_type(file.name))
    if part is None:
        return Response(200, headers, body)
    headers.add("Content-Range", f"bytes {part.start}-{part.start + len(body) - 1}/{status.st_size}")
    return Response(206, headers, body)


def _part(request: Request, size: int, etag: str, modified: str) -> range | None:
    """Return the requested range of bytes: empty if it is not satisfiable, None for the whole file."""
    # RFC 9110 §14.2: "A server MUST ignore a Range header field received with a request method that is
    # unrecognized or for which range handling is not defined. For this specification, GET is the only
    # method for which range handling is defined." A server "MAY ignore the Range header field". We ignore
    # a field with more than one range.
    match = _RANGE.fullmatch(request.headers.get("Range", "") or "")
    if match is None or request.method != "GET":
        return None
    # §13.1.5: the comparison is strong, so a weak tag never matches; a date must be identical.
    if request.headers.get("If-Range", etag) not in (etag, modified):
        return None
    first, last, suffix = (None if digits is None else int(digits) for digits in match.groups())
    if suffix is not None:
        return range(max(0, size - suffix), size)
    assert first is not None
    if last is not None and last < first:
        return None  # §14.1.1: such a range "is invalid", and the field is ignored
    return range(min(first, size), size if last is None else min(last + 1, size))


def _is_fresh(headers: Headers, etag: str, modified: str) -> bool:
    """Whether the client already has this version of the file."""
    if "If-None-Match" in headers:
        # RFC 9110 §13.1.2: "A recipient MUST use the weak comparison function"; and
        # §13.1.3: "MUST ignore If-Modified-Since if the request contains an
        # If-None-Match header field".
        tags = [tag.removeprefix("W/") for tag in headers.list_of("If-None-Match")]
        return etag in tags or tags == ["*"]
    # Compared as text, because a client sends back the text that it received. Precedent: nginx's default,
    # "if_modified_since exact".
    return headers.get("If-Modified-Since") == modified


def _content_type(name: str) -> str:
    kind, encoding = _TYPES.guess_type(name)
    if kind is None or encoding is not None:  # the type of a .tar.gz would be that of a .tar
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
