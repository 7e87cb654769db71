"""What the driver over an asyncio transport cannot do: the tests that it skips, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["LACKING", "Lack", "reason_to_skip"]


class Lack(NamedTuple):
    """Tests that a driver cannot pass."""

    test: str
    #: How the name of the transport starts: "ws" for both, "wss" for TLS only.
    start: str
    reason: str
    #: Other parameters of the test.
    params: Mapping[str, object] = {}


LACKING = [
    Lack(
        "test_large_answers_reach_a_peer_that_has_half_closed",
        "wss",
        "half_close: a TLS transport that has received the end of file sends no more",
    ),
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
            "test_a_page_that_reloads_while_we_stream_to_it_has_closed_with_1001",
            "test_a_page_that_reloads_octet_by_octet_has_closed_with_1001",
            "test_a_page_that_has_read_nothing_and_reloads_has_closed_with_1001",
            "test_the_close_is_found_although_our_write_is_the_first_to_meet_the_reset",
            "test_the_close_is_found_behind_everything_that_nobody_had_read",
            "test_a_ping_of_ours_is_enough_to_find_the_close",
            "test_our_own_close_may_be_the_write_that_fails",
            "test_a_fault_that_was_readable_after_a_failed_write_is_told",
        )
    ),
    *(
        Lack(
            test,
            "wss",
            "half_close: the end of TCP, which these tests compare with FIN, is UNKNOWN",
        )
        for test in (
            "test_the_peers_close_is_answered_with_its_code_and_the_server_ends_tcp_first",
            "test_a_peer_that_half_closes_without_a_close_gets_fin_and_no_close",
            "test_our_answer_reaches_a_peer_that_goes_on_sending_after_its_close",
            "test_a_client_that_drops_while_the_hook_runs_ends_as_soon_as_that_has_decided",
            "test_a_drop_without_a_close_is_told_as_what_it_was",
            "test_a_drop_after_both_closes_is_still_a_clean_ending",
            "test_a_drop_after_the_answer_to_a_fault_is_told_as_that_fault",
        )
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


def reason_to_skip(test: str, params: Mapping[str, object]) -> str | None:
    """Return why a test with these parameters is skipped; None if it is not."""
    name = str(params.get("way", params.get("transport", "")))
    if not name.endswith("transport"):
        return None
    for lack in LACKING:
        if lack.test == test and name.startswith(lack.start) and lack.params.items() <= params.items():
            return lack.reason
    return None
