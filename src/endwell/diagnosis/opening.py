"""The connection was never open: names, ports, TLS, proxies, and the HTTP answer of the server."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from ..ending import Cause, TcpEnd
from .case import Case, Clues, Rule

__all__ = ["RULES"]

FAILED = frozenset({Cause.NETWORK_ERROR, Cause.CONNECTION_RESET, Cause.PEER_VANISHED, Cause.HANDSHAKE_FAILED})
REJECTED = frozenset({Cause.HANDSHAKE_REJECTED})
TLS = frozenset({Cause.TLS_ERROR})

#: For each kind of HTTP status: name, cause and advice.
STATUSES: tuple[tuple[range, str, str, str], ...] = (
    (range(300, 400), "redirected", "the server redirects to another address", "connect there, or set follow_redirects"),
    (range(401, 402), "unauthorized", "the server needs a token or a password, or refuses those it got", "check the token and its expiry"),
    (range(403, 404), "forbidden", "the server refuses this client, or the Origin of the page", "check the option origins of the server, the Host that a proxy passes, and the permissions of the user; Cloudflare answers 403 to clients that it takes for bots"),
    (range(404, 405), "no_such_path", "the server has no WebSocket at this path", "check the path, and the prefix that a proxy adds or removes"),
    (range(400, 427), "upgrade_lost", "the upgrade did not arrive: a proxy did not pass it, or the server is no WebSocket server at this path", "let the proxy pass HTTP/1.1 with the headers Upgrade and Connection"),
    (range(429, 430), "too_many_requests", "the server limits how fast this client may connect", "wait for Retry-After; reconnecting() does"),
    (range(500, 502), "server_error", "the server failed while it answered", "look at the server's log at that time"),
    (range(502, 505), "server_away", "the server is full, stops, or is not reachable behind its proxy", "wait for Retry-After, as reconnecting() does; look at the server and at the proxy's log"),
)  # fmt: skip

#: Texts of OpenSSL's errors: name, cause and advice.
TLS_ERRORS: tuple[tuple[tuple[str, ...], str, str, str], ...] = (
    (("has expired",), "certificate_expired", "the certificate of the peer has expired", "renew it, and check the clock of this machine"),
    (("ostname mismatch", "IP address mismatch", "not valid for"), "wrong_host_name", "the certificate is for another host name", "connect to a name in the certificate, or give server_hostname"),
    (("CERTIFICATE_VERIFY_FAILED",), "certificate_not_trusted", "this side does not trust the certificate of the peer", "add its authority to the trusted ones (ssl context, --cafile), or let the server send the intermediate certificates"),
    (("UNKNOWN_CA", "CERTIFICATE_UNKNOWN", "BAD_CERTIFICATE", "CERTIFICATE_REQUIRED", "CERTIFICATE_EXPIRED", "alert certificate", "alert unknown ca", "alert bad certificate"), "certificate_refused", "the peer refused the certificate of this side, or wants one", "give this side a certificate that the peer trusts, with the whole chain"),
    (("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"), "no_tls", "one of the sides does not speak TLS: ws and wss, or the ports, are confused", "use wss:// with the port of TLS, and ws:// with the other"),
    (("NO_SHARED_CIPHER", "UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION", "HANDSHAKE_FAILURE"), "no_common_tls", "the two sides have no version or cipher suite of TLS in common", "update the older side"),
    (("BAD_RECORD_MAC", "DECRYPTION_FAILED", "bad record mac"), "bytes_altered", "encrypted bytes were altered: by the network, or by two processes that share one connection after a fork", "let each process open its own connections; check the path for damaged packets"),
    (("EOF occurred", "UNEXPECTED_EOF"), "tls_truncated", "TCP ended in the middle of TLS, without close_notify: the peer's process ended, or a proxy cut the connection", "look at the peer's log, and at the timeouts of proxies between"),
)  # fmt: skip


def _status(statuses: range, case: Case) -> Clues:
    if case.status is not None and case.status in statuses:
        yield 5 - (len(statuses) > 5), f"the answer to the handshake was {case.status}{_phrase(case.status)}"


def _phrase(status: int) -> str:
    known = {each.value: each.phrase for each in HTTPStatus}
    return f" {known[status]}" if status in known else ""


def _refused(case: Case) -> Clues:
    said = f"; the error was {case.error!r}" if case.error else ""
    yield 1, f"the server, or a proxy, answered the handshake with an HTTP status other than 101{said}"


def _tls(texts: tuple[str, ...], case: Case) -> Clues:
    if case.errs(*texts):
        yield 5, f"TLS reported {case.error!r}"


def _any_tls(case: Case) -> Clues:
    yield 1, f"TLS reported {case.error!r}" if case.error else "TLS reported an error"


def _no_name(case: Case) -> Clues:
    if case.errs("gaierror"):
        yield 9, f"the system reported {case.error!r}"


def _no_listener(case: Case) -> Clues:
    if case.errs("ConnectionRefusedError"):
        yield 9, f"the system reported {case.error!r}"


def _no_answer(case: Case) -> Clues:
    unreached = case.tcp is TcpEnd.NONE and case.errs("TimeoutError", "timed out")
    if unreached or case.ending.cause is Cause.HANDSHAKE_FAILED:
        yield (
            6 if unreached else 3,
            f"the connection was not open after {case.duration:.1f} s"
            + (f": {case.failure or case.error!r}" if case.failure or case.error else ""),
        )


def _bad_answer(case: Case) -> Clues:
    if case.errs("InvalidHandshake"):
        yield 6, f"the check of the answer reported {case.error!r}"


def _ended_in_opening(case: Case) -> Clues:
    if case.failure and case.ending.cause in (Cause.PEER_VANISHED, Cause.CONNECTION_RESET):
        yield 8, f"the connection was never open: {case.failure!r}"


def _other_error(case: Case) -> Clues:
    yield 1, f"the system reported {case.error!r}" if case.error else "the system reported an error"


RULES = (
    Rule(
        "no_such_host",
        FAILED,
        "the name of the server cannot be resolved",
        "check the name, and the DNS servers of this machine; a container may have others",
        _no_name,
    ),
    Rule(
        "nothing_listens",
        FAILED,
        "no program listens at this address and port",
        "check that the server runs, its port, and that it listens on more than loopback if clients are elsewhere",
        _no_listener,
    ),
    Rule(
        "invalid_answer",
        FAILED,
        "the server does not speak WebSocket, or a proxy altered its answer",
        "check the address and the port; compare the answer with and without the proxy (endwell connect -v)",
        _bad_answer,
    ),
    Rule(
        "ended_in_the_opening",
        FAILED,
        "the server or a proxy ended TCP instead of answering the handshake: wrong port, ws for wss, a server that "
        "is full or starts",
        "check the scheme and the port; look at the server's log and the proxy's at that time",
        _ended_in_opening,
    ),
    Rule(
        "no_answer_in_time",
        FAILED,
        "the server did not answer within open_timeout: a firewall drops packets, or the server is overloaded",
        "try the address from another machine; look at the server's load; raise open_timeout if it is slow to answer",
        _no_answer,
    ),
    Rule(
        "system_error",
        frozenset({Cause.NETWORK_ERROR}),
        "the operating system reported an error of the network",
        "look the error up in the manual page tcp(7) or socket(7); the kernel's log may say more",
        _other_error,
    ),
    *(
        Rule(name, REJECTED, says, advice, partial(_status, statuses))
        for statuses, name, says, advice in STATUSES
    ),
    Rule(
        "handshake_refused",
        REJECTED,
        "the server or a proxy refused the WebSocket",
        "read HandshakeRejected.response: its status, its headers and the beginning of its body; on the server, "
        "the logger endwell.server has the reason at INFO",
        _refused,
    ),
    *(Rule(name, TLS, says, advice, partial(_tls, texts)) for texts, name, says, advice in TLS_ERRORS),
    Rule(
        "tls_error",
        TLS,
        "TLS failed",
        "look the error up in the documentation of OpenSSL; the peer's log may say more",
        _any_tls,
    ),
)
