"""What a driver over a transport cannot do: the tests that it skips, with the reason.

The drivers are those over asyncio's transports of a socket, and the one in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.selection import MEMORY

__all__ = ["LACKING", "LACKING_IN_MEMORY", "Lack", "reason_to_skip"]


class Lack(NamedTuple):
    """A test that a driver cannot pass; an empty name: every test."""

    test: str
    #: How the name of the transport starts: "ws" for both, "wss" for TLS only.
    start: str
    reason: str
    #: Other parameters of the test.
    params: Mapping[str, object] = {}


LACKING = [
    Lack(
        "test_recv_raises_only_when_the_ending_is_known",
        "wss",
        "half_close: the server's close_notify, which the peer answers, is its end",
    ),
    *(
        Lack(
            test,
            "ws",
            "reads_after_failed_write: a transport ends with the failed write, and drops what is readable",
        )
        for test in (
            "test_a_page_that_reloads_during_our_stream_closed_with_1001",
            "test_a_close_octet_by_octet_before_a_reset_is_found",
            "test_a_page_that_reads_nothing_and_reloads_closed_with_1001",
            "test_the_close_is_found_if_our_write_meets_the_reset_first",
            "test_the_close_is_found_behind_unread_messages",
            "test_the_close_is_found_when_our_ping_fails",
            "test_the_peers_close_is_found_when_our_close_fails",
            "test_a_protocol_error_found_after_a_failed_write_is_reported",
        )
    ),
    Lack(
        "test_a_peer_that_answers_but_keeps_tcp_open_is_aborted_after_close_timeout",
        "wss",
        "half_close: the server's close_notify, which the peer answers, is its end",
        {"role": "server"},
    ),
    *(
        Lack(test, "wss", "half_close: a TLS transport that has received the end of file sends no more")
        for test in (
            "test_large_answers_reach_a_peer_that_has_half_closed",
            "test_a_half_closed_client_receives_the_whole_response",
            "test_a_half_closed_client_that_reads_nothing_is_aborted_after_close_timeout",
        )
    ),
    *(
        Lack(
            test, "wss", "half_close: the server's end of the TLS transport hides how TCP ends later", params
        )
        for test, params in (
            ("test_a_drop_after_both_closes_is_clean", {"role": "server", "drop": "RST", "first": "they"}),
            ("test_a_drop_after_the_answer_to_an_error_reports_the_error", {"role": "server", "drop": "RST"}),
        )
    ),
    *(
        Lack(
            test,
            "wss",
            "half_close: asyncio's TLS transport ends TCP with unread data, so that the kernel sends RST",
        )
        for test in (
            "test_an_error_code_reaches_a_peer_that_keeps_sending",
            "test_data_after_the_peers_close_is_discarded",
            "test_our_answer_reaches_a_peer_that_keeps_sending_after_its_close",
            "test_the_ending_is_reported_within_linger_timeout_while_tcp_stays_open",
            "test_a_server_keeps_reading_after_the_ending_and_then_aborts",
            "test_a_refusal_reaches_a_client_that_keeps_sending",
            "test_a_refusal_reaches_a_client_whose_head_never_ends",
        )
    ),
    Lack(
        "test_messages_before_a_close_are_answered_before_the_close",
        "wss",
        "half_close: a TLS transport that has read the end of TCP sends no more; unread, it would hide a reset",
        {"fin": True},
    ),
    Lack(
        "test_our_client_has_the_response_of_a_server_that_then_drops",
        "ws",
        "reads_after_failed_write: a transport drops what is unread at a reset",
        {"end": "RST"},
    ),
    Lack(
        "test_a_server_with_old_protocols_serves_rfc_6455_too",
        "wss",
        "hixie-75 has no Close: only the FIN, which a TLS transport does not show, makes its ending ordinary",
    ),
    Lack(
        "test_a_drop_is_reported_at_once_and_the_handlers_cleanup_runs",
        "wss",
        "a TLS transport takes and drops data between the end of TCP and connection_lost(), and logs that",
        {"drop": "FIN", "application": "_blocked"},
    ),
    *(
        Lack(
            test,
            "wss",
            "a TLS transport takes and drops data between the end of TCP and connection_lost(), and logs that",
            {"ending": ending, "application": "blocked"},
        )
        for ending in ("FIN", "RST")
        for test in (
            "test_a_client_learns_the_true_ending_at_once_in_any_state",
            "test_a_handler_learns_the_true_ending_at_once_in_any_state",
        )
    ),
]


#: What connections in memory lack.
LACKING_IN_MEMORY = [
    Lack("", MEMORY, "threads: a virtual clock cannot know what a thread waits for", {"face": "sync"}),
    *(
        Lack(
            test,
            MEMORY,
            "kernel: TCP_USER_TIMEOUT ends a connection on which nothing is acknowledged",
            params,
        )
        for params in ({"ending": "network lost"},)
        for test in (
            "test_a_client_learns_the_true_ending_at_once_in_any_state",
            "test_a_handler_learns_the_true_ending_at_once_in_any_state",
        )
    ),
    *(
        Lack(
            test,
            MEMORY,
            "kernel: the test looks at the socket, or shares its descriptor with a process",
            params,
        )
        for test, params in (
            ("test_a_drop_is_reported_at_once_and_the_handlers_cleanup_runs", {"drop": "killed"}),
            ("test_abort_ends_tcp_although_a_forked_child_holds_the_descriptor", {}),
            ("test_a_server_keeps_reading_after_the_ending_and_then_aborts", {}),
            ("test_stop_closes_the_sockets_of_reported_endings", {}),
            ("test_the_close_is_found_if_our_write_meets_the_reset_first", {}),
            ("test_the_close_is_found_behind_unread_messages", {}),
        )
    ),
    *(
        Lack(test, MEMORY, "reads_after_failed_write: a transport drops what is readable when a write fails")
        for test in (
            "test_the_close_is_found_when_our_ping_fails",
            "test_the_peers_close_is_found_when_our_close_fails",
            "test_a_protocol_error_found_after_a_failed_write_is_reported",
        )
    ),
    Lack(
        "test_a_peer_that_never_stops_sending_is_aborted_after_close_timeout",
        MEMORY,
        "a virtual clock hardly advances while a peer sends without a pause",
    ),
]


def reason_to_skip(test: str, params: Mapping[str, object]) -> str | None:
    """Return why a test with these parameters is skipped; None if it is not."""
    name = str(params.get("way", params.get("transport", "")))
    if name == MEMORY:
        lacking = LACKING_IN_MEMORY
    elif name.endswith("transport"):
        lacking = LACKING
    else:
        return None
    for lack in lacking:
        if (
            lack.test in ("", test)
            and name.startswith(lack.start)
            and all(
                getattr(params.get(key), "__name__", params.get(key)) == value
                for key, value in lack.params.items()
            )
        ):
            return lack.reason
    return None
