"""The files of the page, with fields that confine it."""

from __future__ import annotations

from pathlib import Path

from ...http import Request, Response
from ..files import BROWSER_MODULE, file_response

__all__ = ["FILES", "confine", "read"]

_FOLDER = Path(__file__).parent
#: The files by their names below the path of the dashboard.
FILES = {
    "": _FOLDER / "page.html",
    "endwell.js": BROWSER_MODULE,
    **{file.name: file for file in sorted(_FOLDER.iterdir()) if file.suffix in (".js", ".css")},
}

#: Nothing of other origins, and no script in the page itself: text of a peer that reaches the page as HTML cannot
#: run, and cannot send anything elsewhere. No other page may frame it, which could trick the operator into a click.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    # The browser itself refuses a script of the page that makes HTML of a text.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

_FIELDS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def read(name: str, request: Request) -> Response:
    """The response with a file; blocks."""
    return confine(file_response(FILES[name], request))


def confine(response: Response) -> Response:
    """Add the fields that confine the page."""
    for name, value in _FIELDS.items():
        response.headers.set(name, value)
    return response
