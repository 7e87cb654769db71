"""Every public exception and value can be pickled and copied."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import endwell
import endwell.errors
from endwell import (
    Accept,
    BroadcastReport,
    Cause,
    Close,
    CloseCode,
    Deflate,
    Drain,
    DrainReport,
    Ending,
    Headers,
    History,
    Initiator,
    Options,
    Request,
    Response,
    Retry,
    RetryAdvice,
    RetryPolicy,
    StopReason,
    TcpEnd,
    TLSInfo,
)
from endwell.errors import (
    GaveUp,
    HandshakeError,
    HandshakeRejected,
    ServiceUnavailable,
    TooManyRequests,
    UpgradeRequired,
)
from endwell.http import Query, headers_of_lines, set_challenge
from endwell.server.drain.timetable import Phase

ROOT = Path(__file__).parents[1]

#: Objects that belong to one process and are not values.
NO_VALUES = {"Server", "Sessions", "WebSocket", "connect", "reconnecting"}

FAULT = Ending(
    cause=Cause.CONNECTION_RESET,
    initiator=Initiator.NETWORK,
    clean=False,
    received=Close(1001, "going"),
    sent=Close(1000, "", not_transmitted=True),
    tcp=TcpEnd.RST,
    messages_in=3,
    latency=0.25,
)
FIELDS = [("Host", "a"), ("Cookie", "b"), ("X", ""), ("x", "\xff")]


def routed():
    request = Request("GET", "/chat/a?x=1&x=2", Headers(FIELDS), "1.1", ("::1", 80, 0, 0), True)
    request.params = {"room": "a"}
    set_challenge(request, bytes(8))
    return request


VALUES = {
    "Accept": Accept(
        subprotocol="a",
        headers=FIELDS,
        state={"user": "ann"},
        subject="ann",
        until=datetime(2030, 1, 1, tzinfo=UTC),
    ),
    "Token": endwell.Token("secret", until=datetime(2030, 1, 1, tzinfo=UTC)),
    "TLSInfo": TLSInfo({"subject": ()}, b"der", "TLSv1.3", "TLS_AES_256_GCM_SHA384", None),
    "RetryAdvice": RetryAdvice(2, 12),
    "BroadcastReport": BroadcastReport(3, (), 1),
    "Cause": Cause.SLOW_PEER,
    "ClientPhase": endwell.ClientPhase.OPEN,
    "ClientState": endwell.ClientState(phase=endwell.ClientPhase.WAITING, until=1.5, last=FAULT, attempts=2),
    "Close": Close(4000, "why"),
    "CloseCode": CloseCode.GOING_AWAY,
    "Deflate": Deflate(level=1),
    "Drain": Drain(window=1.0, reason="restart"),
    "DrainReport": DrainReport(
        connections=2,
        endings={"clean": 2},
        refused=0,
        last_called=0,
        unanswered=0,
        cancelled=0,
        stuck=("handle",),
        slowest=("handle", 0.5),
        phases={Phase.CLOSE: 0.5},
        duration=0.5,
    ),
    "Ending": FAULT,
    "Headers": Headers(FIELDS),
    "Headers of a head": headers_of_lines("Host: a\r\nX: b"),
    "History": History(tries=2, since=0.5),
    "Initiator": Initiator.PEER,
    "Limit": endwell.Limit(messages=3, key="address", excess="drop"),
    "Options": Options(max_size=5, compression=Deflate(level=2), origins=["https://a"]),
    "Query": Query([("x", "1"), ("x", "2")]),
    "Request": routed(),
    "Request of no route": Request("GET", "/", Headers()),
    "Response": Response(404, Headers(FIELDS), b"no"),
    "Retry": Retry.NOW,
    "RetryPolicy": RetryPolicy(max_retries=3, codes={4000: Retry.NEVER}),
    "StopReason": StopReason.DONE,
    "TcpEnd": TcpEnd.RST,
}


def exceptions():
    for name in endwell.errors.__all__:
        cls = getattr(endwell.errors, name)
        if cls is GaveUp:
            yield GaveUp("max_retries is used up", HandshakeRejected(FAULT, Response(503)))
        elif cls is HandshakeRejected:
            yield HandshakeRejected(FAULT, Response(401, Headers(FIELDS), b"no"))
        elif cls is HandshakeError:
            yield HandshakeError(FAULT)
            yield HandshakeError(FAULT, "certificate expired")
        elif issubclass(cls, endwell.ConnectionClosed):
            yield cls(FAULT)
        elif cls is UpgradeRequired:
            yield UpgradeRequired("no", versions=["13", "8"])
        elif cls in (ServiceUnavailable, TooManyRequests):
            yield cls("no", retry_after=7)
        else:
            yield cls("why")


WAYS = {
    **{
        f"pickle {protocol}": lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def public(value):
    """The public attributes that are not methods."""
    names = [name for name in dir(value) if not name.startswith("_") and name != "with_traceback"]
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return {name: what for name, what in found.items() if not callable(what)}


def equal_in_every_attribute(one, other):
    """Whether two values or exceptions are equal in every attribute."""
    if isinstance(one, BaseException):
        assert type(one) is type(other)
        assert (str(one), one.args, repr(one)) == (str(other), other.args, repr(other))
        ours, theirs = public(one), public(other)
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            equal_in_every_attribute(value, theirs[name])
    else:
        assert type(one) is type(other)
        assert one == other
        assert repr(one) == repr(other)


def test_every_public_class_is_covered():
    classes = {name for name in endwell.__all__ if inspect.isclass(getattr(endwell, name))}
    errors = {name for name in classes if issubclass(getattr(endwell, name), BaseException)}
    assert errors <= set(endwell.errors.__all__)
    assert classes - errors - NO_VALUES == {name for name in VALUES if name.isalnum()} - {"Query"}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_and_its_copy_are_equal(value, way):
    equal_in_every_attribute(value, way(value))
    if isinstance(value, Query):
        assert way(value).pairs == value.pairs


@pytest.mark.parametrize("error", list(exceptions()), ids=lambda error: type(error).__name__)
def test_an_exception_and_its_copy_are_equal(error, way):
    equal_in_every_attribute(error, way(error))


def test_an_ending_with_an_exception_is_copied_with_it(way):
    ending = Ending(
        cause=Cause.NETWORK_ERROR,
        initiator=Initiator.NETWORK,
        clean=False,
        exception=ConnectionResetError(104, "reset"),
    )
    copied = way(ending)
    assert (str(copied), copied.as_dict()) == (str(ending), ending.as_dict())
    equal_in_every_attribute(endwell.ConnectionClosed.of(ending).ending.exception, copied.exception)


def test_a_copied_exception_keeps_notes_and_added_attributes(way):
    error = HandshakeRejected(FAULT, Response(401))
    error.add_note("at the second try")
    error.number = 2
    copied = way(error)
    assert (copied.__notes__, copied.number) == (["at the second try"], 2)


def test_an_application_subclass_with_its_own_arguments_is_copied(way):
    copied = way(Busy(3, seconds=5))
    assert (type(copied), str(copied), copied.seconds) == (Busy, "busy: 3", 5)


class Busy(endwell.EndwellError):
    def __init__(self, number, *, seconds):
        super().__init__(f"busy: {number}")
        self.seconds = seconds


def test_changing_a_copy_of_headers_leaves_the_original(way):
    headers = Headers(FIELDS)
    way(headers).add("Y", "z")
    assert list(headers) == FIELDS


#: Runs in the other build: read, compare with its own, write.
OTHER = """
import pickle, sys
import endwell
from tests.test_copies import equal_in_every_attribute, samples
for theirs, ours in zip(pickle.load(sys.stdin.buffer), samples(), strict=True):
    equal_in_every_attribute(theirs, ours)
pickle.dump((len(endwell.compiled()), samples()), sys.stdout.buffer)
"""


def samples():
    return [*VALUES.values(), *exceptions()]


def test_a_pickle_of_one_build_loads_in_the_other():
    environment = {key: value for key, value in os.environ.items() if key != "ENDWELL_PURE"}
    if endwell.compiled():
        environment["ENDWELL_PURE"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", OTHER],
        input=pickle.dumps(samples()),
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    compiled, theirs = pickle.loads(done.stdout)
    # Without a compiler, the other build is plain too.
    assert not (compiled and endwell.compiled())
    for one, other in zip(theirs, samples(), strict=True):
        equal_in_every_attribute(one, other)
