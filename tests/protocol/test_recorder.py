"""The flight recorder: what it keeps, for how many bytes, and when an ending has it."""

from __future__ import annotations

import copy
import json
import pickle
import random
import sys

import pytest

from endwell.build import compiled
from endwell.ending import Cause, Close
from endwell.protocol.deadline import NEVER
from endwell.protocol.record import FORMAT, MAX_CUES, MAX_RECORD, Noted, Record
from endwell.protocol.recorder import RING, Recorder
from endwell.wire.codec import Codec

from .core import RESET, connection, drain_outbox, frame, opened

BEGAN = 4321.123456789


def rounded(size):
    return -(-size // 16) * 16


def answer_ping(core, now):
    """The peer answers the last ping."""
    drain_outbox(core, now)
    core.receive(frame(core, "pong", core.last_payload), now)


def reset(core, now):
    core.lost(RESET, now)
    return core.ending


def kept_alive(rounds, now=BEGAN):
    """A core after some rounds of ping and pong, and the time; its clock has whole nanoseconds, like a real one."""
    core = opened(now=now, recorder=True)
    for _ in range(rounds):
        while not core._unanswered:
            now = round(max(now, core.deadline) + 0.000123, 9)
            core.tick(now)
        now = round(now + 0.0234, 9)
        answer_ping(core, now)
    return core, now


def test_an_abnormal_ending_has_the_cues_and_their_times():
    core = opened(now=BEGAN, recorder=True)
    core.receive(frame(core, "message", "hello"), BEGAN + 1)
    core.send("hi", BEGAN + 2)
    drain_outbox(core, BEGAN + 2)
    record = reset(core, BEGAN + 3).record
    assert (record["format"], record["role"], record["dropped"]) == (FORMAT, "server", 0)
    assert (record["began"], record["ended"]) == (BEGAN, BEGAN + 3)
    assert record["options"]["ping_interval"] == 20
    assert record["cues"] == [
        [BEGAN, "opened"],
        [BEGAN + 3, "lost", 0, {"in": [1, 11], "out": [1, 4], "heard": BEGAN + 1}],
    ]


def test_a_record_has_no_content_of_messages():
    core = opened(now=BEGAN, recorder=True)
    core.receive(frame(core, "message", "secret"), BEGAN)
    core.receive(frame(core, "ping", b"secret"), BEGAN)
    core.send("secret", BEGAN)
    assert "secret" not in json.dumps(reset(core, BEGAN).as_dict())


def test_a_normal_ending_has_no_record():
    core = opened(now=BEGAN, recorder=True)
    core.receive(frame(core, "close", 1000, "bye"), BEGAN)
    drain_outbox(core, BEGAN)
    core.eof(BEGAN)
    assert core.ending.ok
    assert core.ending.record is None
    assert "record" not in core.ending.as_dict()


@pytest.mark.parametrize("code", [1011, 4001])
def test_a_close_that_is_a_fault_has_a_record(code):
    core = opened(now=BEGAN, recorder=True)
    core.receive(frame(core, "close", code, ""), BEGAN)
    drain_outbox(core, BEGAN)
    core.eof(BEGAN)
    assert core.ending.record["cues"][-1] == [BEGAN, "eof", {"out": [0, 4]}]


def test_without_the_option_there_is_no_recorder():
    core = opened(now=BEGAN)
    ending = reset(core, BEGAN)
    assert ending.record is None
    assert core.record() is None


def test_a_client_records_a_failed_opening():
    core = connection(client=True, now=BEGAN, recorder=True)
    core.fail_opening(Cause.HANDSHAKE_FAILED, BEGAN + 1, ValueError("no"))
    assert core.ending.record["protocol"] is None
    assert core.ending.record["cues"] == [[BEGAN + 1, "failed", "handshake_failed", "local"]]


def test_a_server_records_from_the_opening_on_because_most_requests_are_plain_http():
    core = connection(now=BEGAN, recorder=True)
    core.refuse(b"HTTP/1.1 404 Not Found\r\n\r\n", BEGAN)
    assert core.record() is None
    core.eof(BEGAN)


def test_the_last_64_cues_of_a_quiet_connection_are_kept():
    core, now = kept_alive(500)
    record = reset(core, now).record
    assert 64 == MAX_CUES <= len(record["cues"]) <= 65
    assert record["dropped"] == 2 * 500 + 2 - len(record["cues"])
    times = [cue[0] for cue in record["cues"]]
    assert times == sorted(times)
    assert times[-1] == now
    assert [cue[1] for cue in record["cues"][-3:]] == ["ping", "pong", "lost"]
    assert len(json.dumps(dict(record))) <= MAX_RECORD == 4096


def test_a_recorder_takes_at_most_six_tenths_of_a_kibibyte():
    # CPython's allocator gives 16 bytes or a multiple of them for a bytearray, for its bytes and a final zero.
    size = rounded(sys.getsizeof(bytearray())) + rounded(RING + 1)
    assert RING + 1 <= 512
    if "endwell.protocol.recorder" in compiled():  # an object of plain Python takes more
        size += rounded(sys.getsizeof(Recorder(BEGAN)))
    assert size <= 0.6 * 1024


def test_a_busy_connection_keeps_as_many_cues_as_fit():
    core, now = opened(now=BEGAN, recorder=True), BEGAN
    for _ in range(100):
        while not core._unanswered:
            for _ in range(30):
                core.receive(frame(core, "message", "x" * 5000), round(now + 0.1, 9))
                core.inbox.clear()
                core.send("y" * 70_000, round(now + 0.2, 9))
            drain_outbox(core, round(now + 0.3, 9))
            now = round(max(now + 0.4, core.deadline) + 0.000123, 9)
            core.tick(now)
        now = round(now + 0.0234, 9)
        answer_ping(core, now)
    record = reset(core, now).record
    assert 20 < len(record["cues"]) <= 64
    assert record["dropped"] + len(record["cues"]) == 202
    assert len(json.dumps(dict(record))) <= MAX_RECORD
    assert record["cues"][-3][2]["in"] == [30, 30 * 5008]


def random_note(chance):
    """The arguments of an entry of any kind."""
    return (
        chance.choice(list(Noted)),
        chance.choice([chance.uniform(0, 1e7), round(chance.uniform(0, 1e6), 9), 0.0, 1e8]),
        *(chance.choice([0, 1, chance.randrange(2**40)]) for _ in range(4)),
        chance.choice([-NEVER, 0.0, chance.uniform(0, 1e7), round(chance.uniform(0, 1e6), 9)]),
        chance.choice([0, chance.randrange(2**40)]),
        chance.choice([NEVER, chance.uniform(0, 1e7)]),
    )


DETAILS = {
    Noted.DUE: 4,
    Noted.DUE_UNREAD: 4,
    Noted.STALLED: 5,
    Noted.TIME_UP: 1,
}
SMALL = {Noted.PONGS: 1, Noted.CLOSE: 1, Noted.FAILED: 2, Noted.LOST: 1}


@pytest.mark.parametrize("seed", range(5))
def test_what_is_decoded_is_what_was_noted(seed):
    chance = random.Random(seed)
    recorder = Recorder(BEGAN)
    noted = []
    for number in range(300):
        entry = random_note(chance)
        recorder.note(*entry)
        for _ in range(SMALL.get(entry[0], 0)):
            recorder.add(1)
        for _ in range(DETAILS.get(entry[0], 0)):
            recorder.add_float(entry[1])
        noted.append(entry)
        if number % 10:
            continue
        record = Record({}, recorder.recording())
        cues = record["cues"]
        assert record["dropped"] + len(cues) == len(noted)
        for cue, (kind, now, *_, heard, unsent, stuck_at) in zip(cues, noted[-len(cues) :], strict=True):
            assert cue[:2] == [now, kind.name.lower()]
            traffic = cue[-1] if isinstance(cue[-1], dict) else {}
            assert traffic.get("unsent", 0) == unsent
            assert traffic.get("stuck_at", NEVER) == stuck_at
            if heard:  # otherwise nothing was ever heard
                assert traffic.get("heard", heard) == (None if heard == -NEVER else heard)


def test_a_record_is_copied_as_a_plain_dict():
    core = opened(now=BEGAN, recorder=True)
    ending = reset(core, BEGAN)
    for copied in (copy.deepcopy(ending), pickle.loads(pickle.dumps(ending))):
        assert type(copied.record) is dict
        assert copied.record == dict(ending.record)
    assert str(ending.record) == str(dict(ending.record))
    assert len(ending.record) == len(list(ending.record))


def test_closing_again_and_again_does_not_push_the_cues_out():
    core = opened(now=BEGAN, recorder=True)
    for _ in range(100):
        core.close(Close(4000), BEGAN + 1)
    assert [cue[1] for cue in reset(core, BEGAN + 2).record["cues"]] == ["opened", "close", "lost"]


def test_an_option_of_the_route_turns_the_recorder_on():
    core = connection(now=BEGAN)
    core.use(core.options.replace(recorder=True))
    core.accept(Codec(False), BEGAN)
    assert reset(core, BEGAN).record is not None


def test_a_record_has_fewer_cues_if_its_json_would_exceed_4_kib():
    recorder = Recorder(BEGAN)
    for number in range(60):
        recorder.note(Noted.PING, BEGAN + number, 0, number * 1000, 0, 0, BEGAN, 0, NEVER)
    whole = Record({}, recorder.recording())
    record = Record({"text": "x" * 2500}, recorder.recording())
    assert len(json.dumps(dict(whole))) <= MAX_RECORD
    assert len(json.dumps(dict(record))) <= MAX_RECORD
    assert 10 < len(record["cues"]) < len(whole["cues"])
    assert record["cues"] == whole["cues"][-len(record["cues"]) :]
    assert record["dropped"] + len(record["cues"]) == 60
