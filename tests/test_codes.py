"""The table of close codes against RFC 6455 §7.4 and the IANA registry."""

import pytest

from endwell.codes import RANGES, CloseCode, Retry, describe

# The IANA registry "WebSocket Close Code Number", and whether RFC 6455 §7.4 allows the code in a Close
# frame.
REGISTERED = {
    1000: ("NORMAL_CLOSURE", True),
    1001: ("GOING_AWAY", True),
    1002: ("PROTOCOL_ERROR", True),
    1003: ("UNSUPPORTED_DATA", True),
    1004: ("RESERVED", False),
    1005: ("NO_STATUS_RCVD", False),
    1006: ("ABNORMAL_CLOSURE", False),
    1007: ("INVALID_DATA", True),
    1008: ("POLICY_VIOLATION", True),
    1009: ("MESSAGE_TOO_BIG", True),
    1010: ("MANDATORY_EXTENSION", True),
    1011: ("INTERNAL_ERROR", True),
    1012: ("SERVICE_RESTART", True),
    1013: ("TRY_AGAIN_LATER", True),
    1014: ("BAD_GATEWAY", True),
    1015: ("TLS_HANDSHAKE", False),
    3000: ("UNAUTHORIZED", True),
    3003: ("FORBIDDEN", True),
    3008: ("TIMEOUT", True),
}
#: The codes of endwell itself.
OWN = {4990: "PAGE_LEFT", 4991: "REPLACED"}


def test_close_codes_are_the_registered_ones_and_two_of_endwell():
    assert {code.value: code.name for code in CloseCode} == {
        code: name for code, (name, _) in REGISTERED.items()
    } | OWN


@pytest.mark.parametrize("code", REGISTERED)
def test_a_registered_code_may_be_sent_as_the_rfc_says(code):
    on_the_wire = REGISTERED[code][1]
    row = describe(code)
    assert row is CloseCode(code)
    assert (row.may_send, row.may_receive) == (on_the_wire, on_the_wire)


@pytest.mark.parametrize(
    ("first", "last", "on_the_wire"),
    [(0, 999, False), (1016, 2999, False), (3000, 3999, True), (4000, 4999, True), (5000, 65535, False)],
)
def test_an_unregistered_code_may_be_sent_as_its_range_says(first, last, on_the_wire):
    for code in range(first, last + 1):
        if code not in REGISTERED | OWN:
            row = describe(code)
            assert row in RANGES
            assert (row.may_send, row.may_receive) == (on_the_wire, on_the_wire), code


def test_the_ranges_cover_all_16_bit_codes_exactly_once():
    covered = [code for row in RANGES for code in range(row.first, row.last + 1)]
    assert covered == list(range(65536))


@pytest.mark.parametrize("code", [-1, 65536])
def test_a_code_that_does_not_fit_two_octets_is_refused(code):
    with pytest.raises(ValueError, match=f"not {code}$"):
        describe(code)


def test_these_codes_are_clean():
    assert {code for code in CloseCode if code.clean} == {1000, 1001, 1005, 1012, 4990, 4991}
    assert not any(row.clean for row in RANGES)


def test_a_client_reconnects_after_these_codes():
    assert {code for code in CloseCode if code.retry is Retry.NOW} == {1001, 1006, 1012, 4990}
    assert {code for code in CloseCode if code.retry is Retry.LATER} == {1005, 1011, 1013, 1014, 1015, 3008}
    assert [row.first for row in RANGES if row.retry is not Retry.NEVER] == [3000, 4000]


@pytest.mark.parametrize("row", [*CloseCode, *RANGES], ids=str)
def test_every_code_has_meaning_usual_reason_and_advice(row):
    for text in (row.meaning, row.usual, row.advice):
        assert text
        assert text == text.strip()


def test_a_close_code_equals_its_number():
    assert CloseCode.GOING_AWAY == 1001
    assert int(CloseCode(1001)) == 1001
    assert f"{CloseCode.GOING_AWAY}" == "1001"
