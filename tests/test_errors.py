"""Every exception carries its consequence: a close code or an HTTP status."""

import ast
from pathlib import Path

import pytest

import endwell
from endwell import errors
from endwell.codes import CloseCode
from endwell.ending import Cause, Close, Ending
from endwell.errors import (
    BadRequest,
    BodyTooLarge,
    BusUnavailable,
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    EndwellError,
    Forbidden,
    HandshakeError,
    HandshakeRejected,
    HeadTooLarge,
    InvalidData,
    LengthRequired,
    MessageTooBig,
    MethodNotAllowed,
    MisdirectedRequest,
    NotFound,
    PeerError,
    PolicyViolation,
    ProtocolError,
    RangeNotSatisfiable,
    RequestRefused,
    RequestTimeout,
    ServiceUnavailable,
    TooManyConnections,
    TooManyRequests,
    UnknownMethod,
    UnsupportedCoding,
    UnsupportedMediaType,
    UpgradeRequired,
    close_after,
    unavailable,
)
from endwell.http import Response


def family(base):
    """The subclasses that this package defines."""
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, base)]
    return [cls for cls in found if cls is not base]


ENDING = Ending(
    cause=Cause.PEER_CLOSED, initiator=Cause.PEER_CLOSED.initiator, clean=True, received=Close(1000)
)
FAULT = Ending(cause=Cause.PEER_VANISHED, initiator=Cause.PEER_VANISHED.initiator, clean=False)


def test_every_exception_has_the_common_base_class():
    assert all(issubclass(getattr(errors, name), EndwellError) for name in errors.__all__)


def test_every_exception_is_public():
    assert {cls.__name__ for cls in family(Exception)} == set(errors.__all__)


def test_a_peer_error_has_the_close_code_of_its_class():
    assert {cls: cls().code for cls in family(PeerError)} == {
        ProtocolError: CloseCode.PROTOCOL_ERROR,
        InvalidData: CloseCode.INVALID_DATA,
        MessageTooBig: CloseCode.MESSAGE_TOO_BIG,
        PolicyViolation: CloseCode.POLICY_VIOLATION,
    }


def test_a_handshake_error_has_the_http_status_of_its_class():
    assert {cls: cls("why").response().status for cls in family(RequestRefused)} == {
        BadRequest: 400,
        Forbidden: 403,
        NotFound: 404,
        MethodNotAllowed: 405,
        RequestTimeout: 408,
        LengthRequired: 411,
        BodyTooLarge: 413,
        UnsupportedMediaType: 415,
        RangeNotSatisfiable: 416,
        MisdirectedRequest: 421,
        UpgradeRequired: 426,
        TooManyRequests: 429,
        HeadTooLarge: 431,
        UnknownMethod: 501,
        UnsupportedCoding: 501,
        TooManyConnections: 503,
        ServiceUnavailable: 503,
    }


@pytest.mark.parametrize("cls", family(RequestRefused))
def test_a_refusal_response_is_the_error_as_plain_text(cls):
    response = cls("the reason").response()
    assert response.body == b"the reason\n"
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_a_refused_version_is_answered_with_the_supported_one():
    headers = UpgradeRequired("version 13 only").response().headers
    assert (headers["Upgrade"], headers["Sec-WebSocket-Version"]) == ("websocket", "13")


def test_a_refused_version_is_answered_with_all_supported_ones():
    headers = UpgradeRequired("no", versions=["13", "8"]).response().headers
    assert headers["Sec-WebSocket-Version"] == "13, 8"


def test_a_refused_method_is_answered_with_the_allowed_ones():
    assert MethodNotAllowed("no").response().headers["Allow"] == "GET, HEAD"


# What a refusal may quote: the fixed texts of the HTTP parser, that of a bus that is away, and our subprotocol.
OURS = {"problem", "UNAVAILABLE", "SUBPROTOCOL"}


def refusals():
    """Each ``RequestRefused`` that the package creates, as (place, text)."""
    names = {cls.__name__ for cls in family(RequestRefused)}
    source = Path(endwell.__file__).parent
    for file in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield f"{file.relative_to(source)}:{node.lineno}", node.args


@pytest.mark.parametrize(("place", "args"), [pytest.param(*each, id=each[0]) for each in refusals()])
def test_a_refusal_never_quotes_the_peer(place, args):
    (text,) = args
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    for part in parts:
        if not isinstance(part, ast.Constant):
            assert ast.unparse(getattr(part, "value", part)) in OURS, place


@pytest.mark.parametrize(("ending", "cls"), [(ENDING, ConnectionClosedOK), (FAULT, ConnectionClosedError)])
def test_the_exception_class_follows_from_the_ending(ending, cls):
    error = ConnectionClosed.of(ending)
    assert type(error) is cls
    assert isinstance(error, ConnectionClosed)
    assert error.ending is ending
    assert (error.code, error.reason) == (ending.code, ending.reason)
    assert str(error) == str(ending)


def test_two_concurrent_receivers_raise_a_runtime_error():
    assert issubclass(ConcurrencyError, RuntimeError)


def test_a_handshake_error_shows_its_ending_or_a_better_message():
    assert str(HandshakeError(FAULT)) == str(FAULT)
    assert str(HandshakeError(FAULT, "certificate expired")) == "certificate expired"
    assert HandshakeError(FAULT).ending is FAULT


@pytest.mark.parametrize(("status", "text"), [(403, "HTTP 403 Forbidden"), (799, "HTTP 799")])
def test_a_rejected_handshake_keeps_the_response(status, text):
    response = Response(status, body=b"no")
    error = HandshakeRejected(FAULT, response)
    assert error.response is response
    assert error.ending is FAULT
    assert str(error) == f"server refused with {text}"


LOST = BusUnavailable("redis")


@pytest.mark.parametrize(
    ("exc", "found"),
    [
        (LOST, LOST),
        (ValueError(), None),
        (ExceptionGroup("x", [LOST, ExceptionGroup("y", [BusUnavailable("other")])]), LOST),
        (ExceptionGroup("x", [LOST, ExceptionGroup("y", [LOST, ValueError()])]), None),
        (BaseExceptionGroup("x", [LOST, KeyboardInterrupt()]), None),
    ],
)
def test_a_bus_that_is_unavailable_is_found_where_nothing_else_failed(exc, found):
    assert unavailable(exc) is found
    code, reason = close_after(exc)
    assert code is (CloseCode.INTERNAL_ERROR if found is None else CloseCode.TRY_AGAIN_LATER)
    assert (reason == "") is (found is None)
