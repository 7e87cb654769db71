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
        "test_large_answers_to_a_peer_that_has_ended_its_side_of_tcp_arrive",
        "wss",
        "half_close: a TLS transport that has received the end of file sends no more",
    ),
    Lack(
        "test_the_end_is_told_when_the_ending_is_known",
        "wss",
        "half_close: the server's close_notify, which the peer answers, is its end",
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
            "test_a_client_is_told_the_truth_at_once_whatever_it_does",
            "test_a_handler_is_told_the_truth_at_once_whatever_it_does",
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
