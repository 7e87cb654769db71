"""No Close came: proxies, killed processes, lost networks, machines that sleep, peers that do not read."""

from __future__ import annotations

from ..ending import Cause, TcpEnd
from .case import Case, Clues, Rule, counted, were

__all__ = ["RULES"]

#: Usual idle timeouts in seconds, and what has them by default or in its documentation.
IDLE_TIMEOUTS = {
    30: "load balancers of Google Cloud, HAProxy in many configurations",
    50: "HAProxy in many configurations",
    55: "the router of Heroku",
    60: "nginx (proxy_read_timeout), AWS ALB",
    100: "Cloudflare",
    240: "Azure Load Balancer",
    300: "Envoy (stream_idle_timeout)",
    350: "AWS NLB and NAT gateway",
    600: "the connection tracking of Google Cloud",
    3600: "HAProxy (timeout tunnel) in many configurations, Envoy for TCP",
}
#: The default of ping_interval, in seconds. ping_timeout has the same.
PING_INTERVAL = 20

VANISHED = frozenset({Cause.PEER_VANISHED, Cause.CONNECTION_RESET})
RESET = frozenset({Cause.CONNECTION_RESET})
SILENT = frozenset({Cause.KEEPALIVE_TIMEOUT})
STUCK = frozenset({Cause.WRITE_TIMEOUT})
ERROR = frozenset({Cause.NETWORK_ERROR})


def _usual(seconds: float) -> int | None:
    """The usual timeout that ended a connection after ``seconds``. The proxy may notice it a little later."""
    return next((each for each in IDLE_TIMEOUTS if -0.5 <= seconds - each <= max(1.5, each / 50)), None)


def _end(case: Case) -> str:
    reset = case.ending.cause is Cause.CONNECTION_RESET or case.tcp is TcpEnd.RST
    return "TCP ended with a reset (RST)" if reset else "TCP ended with FIN"


def _idle(case: Case) -> Clues:
    usual = _usual(case.duration)
    if case.latency is not None or case.duration < 25:
        return  # answered pings are data, too
    if usual is not None:
        yield (
            5,
            f"the connection lasted {case.duration:.1f} s, and {usual} s is the idle timeout of "
            + (IDLE_TIMEOUTS[usual]),
        )
    if case.no_data:
        yield 3, f"nothing was sent or received for {case.duration:.1f} s, and then {_end(case)}"
    elif case.no_pong:
        # With pings, a peer that answers none is closed after two intervals.
        off = case.duration >= 3 * PING_INTERVAL
        yield (
            2 + off,
            f"no ping was answered in {case.duration:.1f} s, so only messages kept the connection in use"
            + ("; it seems that pings are off" if off else ""),
        )


def _lifetime(case: Case) -> Clues:
    usual = _usual(case.duration)
    if usual is not None and case.latency is not None:
        yield (
            4,
            (
                f"the connection lasted {case.duration:.1f} s, close to {usual} s, although pings were answered"
            ),
        )


def _forgotten(case: Case) -> Clues:
    if case.latency is None and case.no_pong and case.duration >= 239:
        yield 4, f"no ping was answered in {case.duration:.1f} s, and then {_end(case)}"


def _probe(case: Case) -> Clues:
    if case.role != "client" and case.no_message and case.duration < 2:
        yield 4, f"no message was sent or received, and TCP ended {case.duration:.1f} s after it was opened"


def _killed(case: Case) -> Clues:
    yield 3, f"no Close came, and {_end(case)}"
    if case.ending.cause is Cause.CONNECTION_RESET and case.counted and case.ending.messages_out:
        sent = counted(case.ending.messages_out, "message")
        yield 1, f"{sent} had been sent: a system resets a connection whose process left data unread"
    if (
        case.ending.cause is Cause.PEER_VANISHED
        and case.counted
        and not case.no_message
        and case.duration >= 2
    ):
        yield 1, f"messages were exchanged, and the end came {case.duration:.1f} s after the opening"


def _no_handshake(case: Case) -> Clues:
    if case.ending.cause is Cause.CONNECTION_RESET:
        yield 2, "a program that aborts a connection, or ends it with data unread, resets it"
        return
    # The process of a server goes on after the end of one connection.
    yield (
        5 if case.role == "client" else 2,
        "TCP ended in an orderly way, with FIN, and without a Close before it",
    )
    if case.counted and case.ending.messages_in + case.ending.messages_out and case.duration < 2:
        messages = counted(case.ending.messages_in + case.ending.messages_out, "message")
        yield 3, f"{messages} in {case.duration:.1f} s, then the end: the program seems to have finished"


def _proxy_restart(case: Case) -> Clues:
    yield 1, f"{_end(case)} without a Close; if other connections ended in the same second, this is likely"


def _this_side_stalled(case: Case) -> Clues:
    if case.stalled:
        # A short stall does not make a peer give up.
        yield (
            9 if case.stalled >= 5 else 2,
            f"this process did not run for {case.stalled:.1f} s before the end",
        )


def _peer_suspended(case: Case) -> Clues:
    yield 3, "neither a Close, nor FIN, nor RST came, and a ping was not answered"
    if case.latency is not None:
        yield 1, f"the last ping that was answered took {case.latency * 1000:.0f} ms: the path was good"


def _no_pongs(case: Case) -> Clues:
    # A peer that vanished early, before the first ping, has not answered one either.
    if case.counted and case.no_pong and case.duration >= 4.5 * PING_INTERVAL:
        messages = counted(case.ending.messages_in, "message")
        yield 5, f"{messages} came in {case.duration:.1f} s, but never a pong"


def _slow_answers(case: Case) -> Clues:
    if case.latency is not None and case.latency >= 1:
        yield 5, f"the last ping that was answered took {case.latency:.1f} s"
    # A server does not sleep as a laptop does.
    yield (
        5 if case.role == "client" else 1,
        "a process that does not run answers no pings either, and TCP does not tell",
    )


def _unread(case: Case) -> Clues:
    if case.unsent:
        yield 4, f"{counted(case.unsent, 'byte')} could not be sent, because the peer accepted none"


def _reads_nothing(case: Case) -> Clues:
    yield (
        4,
        "the peer's system answered, but the peer read nothing"
        if case.errs("WindowClosed")
        else ("the peer accepted no data for write_timeout"),
    )
    yield from _unread(case)


def _lost_with_data(case: Case) -> Clues:
    if not case.errs("WindowClosed"):
        yield (
            3,
            "data waited to be sent, and nothing of it was acknowledged in time, or the peer did not read",
        )


def _cut(case: Case) -> Clues:
    if case.tcp is TcpEnd.NONE or case.errs("gaierror"):
        return
    if case.tcp is TcpEnd.TIMEOUT or case.errs("TimeoutError", "timed out"):
        error = repr(case.error) if case.error else "TCP timed out"
        yield 5, f"the system gave up retransmitting: {error}"
    if case.unsent:
        yield 1, f"{were(case.unsent, 'byte')} waiting to be sent"


def _route(case: Case) -> Clues:
    texts = "No route to host", "etwork is unreachable", "etwork is down", "Host is down"
    if case.errs(*texts):
        yield 6, f"the system reported {case.error!r}"


RULES = (
    Rule(
        "proxy_idle_timeout",
        VANISHED,
        "the idle timeout of a proxy or load balancer between the peers",
        "set ping_interval below the proxy's idle timeout (half of it is usual), and check that pings are on and "
        "pass the proxy; or raise the timeout of the proxy",
        _idle,
    ),
    Rule(
        "this_side_stalled",
        VANISHED | SILENT | STUCK | ERROR,
        "this process was stalled: a blocked event loop, a stopped process, or a machine that slept",
        'search the log for "the event loop was stalled" and "this machine slept"; move blocking calls into '
        "threads; asyncio's debug mode names them",
        _this_side_stalled,
    ),
    Rule(
        "proxy_lifetime",
        VANISHED,
        "a maximum lifetime of connections in a proxy, which counts whatever flows",
        "raise that limit of the proxy, such as the timeout of the backend service in Google Cloud; or set "
        "max_lifetime below it, so that connections end with a Close",
        _lifetime,
    ),
    Rule(
        "forgotten_by_a_middlebox",
        RESET,
        "a NAT, a firewall or a load balancer forgot the idle connection, and reset it at the next packet",
        "set ping_interval below the time after which it forgets; 20 s is below all usual ones",
        _forgotten,
    ),
    Rule(
        "probe",
        VANISHED,
        "a health check, a monitor or a scanner that opens a WebSocket and leaves",
        "look at the address and the path; let health checks use an HTTP page instead",
        _probe,
    ),
    Rule(
        "peer_killed",
        VANISHED,
        "the peer's process ended without a Close: kill -9, a crash, out of memory, a mobile system that ended "
        "the app",
        "look at the peer at that time: its log, exit status, the kernel's log; clients reconnect. Some browsers "
        "that are killed or quit by a signal, and old ones that leave a page, end like this, too",
        _killed,
    ),
    Rule(
        "no_closing_handshake",
        VANISHED,
        "the peer's program or library ends TCP without a Close",
        "let the peer's program close the WebSocket before it ends. As a client: servers on uvicorn's own "
        "classes, aiohttp or tornado do this when a handler returns or raises, so look at the server's log",
        _no_handshake,
    ),
    Rule(
        "proxy_restarted",
        VANISHED,
        "a proxy between the peers was restarted or reloaded",
        "compare the time with the proxy's log; give it time to keep old connections, such as "
        "worker_shutdown_timeout of nginx or stream_close_delay of Caddy",
        _proxy_restart,
    ),
    Rule(
        "peer_suspended",
        SILENT,
        "the peer's machine sleeps, or the network to it is gone: a closed laptop, a phone without reception",
        "nothing on this side: keepalive has worked. ping_interval and ping_timeout decide how soon it is "
        "noticed; a client reconnects when it is back",
        _peer_suspended,
    ),
    Rule(
        "peer_answers_no_pings",
        SILENT,
        "the peer, or a proxy, does not answer pings",
        "RFC 6455 requires an answer. Some libraries answer only while the program reads: look for a blocked "
        "receiver in the peer. For a peer that cannot answer, set ping_timeout=None",
        _no_pongs,
    ),
    Rule(
        "peer_slow_to_answer",
        SILENT,
        "the peer's process did not run: its event loop was blocked, it was stopped, or its machine overloaded",
        'look at the peer: "the event loop was stalled" in its log, its CPU, blocking calls in its handlers, '
        "SIGSTOP and debuggers; raise ping_timeout if such delays are normal there",
        _slow_answers,
    ),
    Rule(
        "peer_reads_nothing",
        SILENT,
        "the peer stopped reading: a frozen page, a stopped process, a program that does not receive",
        "look for a peer that handles messages slower than they come; a page in the back/forward cache reads "
        "nothing, and endwell.js closes before that",
        _unread,
    ),
    Rule(
        "peer_reads_nothing",
        STUCK,
        "the peer stopped reading: a frozen page, a stopped process, a program that does not receive",
        "look for a peer that handles messages slower than they come; a page in the back/forward cache reads "
        "nothing, and endwell.js closes before that; write_timeout decides how long to wait",
        _reads_nothing,
    ),
    Rule(
        "network_lost",
        STUCK,
        "the network to the peer was lost while data was on its way",
        "nothing on this side; a client reconnects when its network is back",
        _lost_with_data,
    ),
    Rule(
        "network_cut",
        ERROR,
        "the network to the peer was cut, or the peer's machine went down",
        "check the path (cable, radio, VPN, a firewall that drops packets); a client reconnects. Keepalive "
        "notices it sooner than TCP: check that ping_interval and ping_timeout are set",
        _cut,
    ),
    Rule(
        "route_lost",
        ERROR,
        "this machine has no route to the peer: an interface, Wi-Fi or a VPN went down or changed",
        "check the network of this machine",
        _route,
    ),
)
