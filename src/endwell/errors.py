"""Every exception of the package; each carries its consequence.

Whoever raises one does not choose the close code or HTTP status, and whoever
handles it does not either: it stands in the class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from .codes import CloseCode
from .ending import Cause, Close, Ending
from .http import Headers, Response

__all__ = [
    "BadRequest",
    "BodyTooLarge",
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "EndwellError",
    "Forbidden",
    "GaveUp",
    "HandshakeError",
    "HandshakeRejected",
    "HeadTooLarge",
    "InvalidData",
    "InvalidHandshake",
    "MessageTooBig",
    "MethodNotAllowed",
    "MisdirectedRequest",
    "NotFound",
    "PeerError",
    "PolicyViolation",
    "ProtocolError",
    "RequestRefused",
    "ServiceUnavailable",
    "TooManyConnections",
    "UnsupportedByProtocol",
    "UpgradeRequired",
]


class EndwellError(Exception):
    """The base of every exception that this package raises by itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Not Exception's own way, which calls the class with the text alone: some take more.
        return _restored, (type(self), self.args), self.__dict__


def _restored(cls: type[EndwellError], arguments: tuple[Any, ...]) -> EndwellError:
    return cls.__new__(cls, *arguments)


# --- told to the application -------------------------------------------------


class ConnectionClosed(EndwellError):
    """The connection has ended; :attr:`ending` says how.

    It is raised as one of its two subclasses. Catch this one unless the
    difference matters.
    """

    def __init__(self, ending: Ending) -> None:
        super().__init__(str(ending))
        self.ending = ending

    @property
    def code(self) -> int:
        """:attr:`Ending.code`."""
        return self.ending.code

    @property
    def reason(self) -> str:
        """:attr:`Ending.reason`."""
        return self.ending.reason

    @staticmethod
    def of(ending: Ending) -> ConnectionClosed:
        """The subclass that fits ``ending``."""
        return (ConnectionClosedOK if ending.ok else ConnectionClosedError)(ending)


class ConnectionClosedOK(ConnectionClosed):
    """The connection ended in an ordinary way (:attr:`Ending.ok`)."""


class ConnectionClosedError(ConnectionClosed):
    """The connection ended by a fault."""


class ConcurrencyError(EndwellError, RuntimeError):
    """A call that can never return: two tasks receive from one connection, or it blocks the event loop."""


class UnsupportedByProtocol(EndwellError, TypeError):
    """The old protocol of this connection has no such thing: a binary message, a ping. Nothing was sent."""


class HandshakeError(EndwellError):
    """A client's opening handshake failed; :attr:`ending` says how."""

    def __init__(self, ending: Ending, message: str = "") -> None:
        super().__init__(message or str(ending))
        self.ending = ending


class HandshakeRejected(HandshakeError):
    """The server answered the opening handshake with :attr:`response` instead of 101."""

    def __init__(self, ending: Ending, response: Response, server: str = "") -> None:
        refusal = f"server refused with HTTP {response.status} {response.reason}".rstrip()
        super().__init__(ending, f"{server}: {refusal}" if server else refusal)
        self.response = response


class GaveUp(EndwellError):
    """A reconnecting client has used up its retries or its time.

    ``last`` is what ended its last try, :attr:`ending` says how.
    """

    def __init__(self, why: str, last: ConnectionClosed | HandshakeError) -> None:
        super().__init__(f"{why}; the last time: {last}")
        self.last = last
        self.ending = last.ending


# --- a peer broke a rule after the opening: ends that connection with a code --


class PeerError(EndwellError):
    """The peer broke a rule; the connection ends with ``code``."""

    cause: ClassVar[Cause]

    @property
    def code(self) -> CloseCode:
        """The close code that is sent for it."""
        code = self.cause.close_code
        assert code is not None
        return code

    @property
    def close(self) -> Close:
        """The Close that is sent for it: our own words, cut to the 123 bytes that a reason may have."""
        return Close(self.code, str(self).encode()[:123].decode(errors="ignore"))


class ProtocolError(PeerError):
    """The peer broke RFC 6455 or an extension's rules: 1002."""

    cause = Cause.PROTOCOL_ERROR


class InvalidData(PeerError):
    """The peer sent text that is not UTF-8: 1007."""

    cause = Cause.INVALID_DATA


class MessageTooBig(PeerError):
    """The peer sent a message above ``max_size``: 1009."""

    cause = Cause.MESSAGE_TOO_BIG


class PolicyViolation(PeerError):
    """The peer exceeded a limit other than ``max_size``: 1008."""

    cause = Cause.POLICY_LIMIT


# --- a client broke a rule in its request: answered with an HTTP status -------


class RequestRefused(EndwellError):
    """A request that is not accepted; it is answered with ``status`` and ``headers``."""

    status: ClassVar[int] = 400
    headers: Iterable[tuple[str, str]] = ()

    def __init__(self, message: str = "", *, detail: str = "") -> None:
        super().__init__(message)
        #: What is logged besides, with the peer's text only as its ``repr``; it is never sent.
        self.detail = detail

    def response(self) -> Response:
        """The answer. The text is this package's own words, never the peer's."""
        return Response.text(f"{self}\n", self.status, Headers(self.headers))


class BadRequest(RequestRefused):
    """The request breaks HTTP or RFC 6455 §4.2.1: 400."""


class Forbidden(RequestRefused):
    """The page's origin is not allowed: 403."""

    status = 403


class NotFound(RequestRefused):
    """No route has this path: 404."""

    status = 404


class MethodNotAllowed(RequestRefused):
    """The route does not answer this method: 405."""

    status = 405
    headers = (("Allow", "GET, HEAD"),)


class BodyTooLarge(RequestRefused):
    """The request has a body where none is taken: 413."""

    status = 413


class MisdirectedRequest(RequestRefused):
    """The request is for a host that the server does not answer to (``allowed_hosts``): 421.

    RFC 9110 §7.4: "The 421 (Misdirected Request) status code in a response indicates that
    the origin server has rejected the request because it appears to have been misdirected".
    """

    status = 421


class HeadTooLarge(RequestRefused):
    """The request's head exceeds a limit: 431."""

    status = 431


class UpgradeRequired(RequestRefused):
    """The request asks for another version, or for none: 426.

    RFC 6455 §4.4: "If the server doesn't support the requested version, it MUST
    respond with a |Sec-WebSocket-Version| header field (...) containing all
    versions it is willing to use."
    """

    status = 426

    def __init__(self, message: str = "", versions: Iterable[str] = ("13",)) -> None:
        super().__init__(message)
        self.headers = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", ", ".join(versions)))


class TooManyConnections(RequestRefused):
    """The server has as many connections as it takes, in all or from this address: 503."""

    status = 503
    headers = (("Retry-After", "10"),)


class ServiceUnavailable(RequestRefused):
    """The server takes nobody for this now: 503; ``retry_after`` seconds later it may."""

    status = 503

    def __init__(self, message: str = "", *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.headers = (("Retry-After", str(retry_after)),)


class InvalidHandshake(EndwellError):
    """A server's 101 that breaks RFC 6455 §4.1; the client fails the connection."""
