"""A record replays to the same ending: the same code takes the same rows of the closing table."""

from __future__ import annotations

import errno
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from endwell import testing
from endwell.ending import Cause, Close, Initiator, TcpEnd
from endwell.protocol.closing import WindowClosed
from endwell.protocol.pause import Pause
from endwell.protocol.record import MAX_CUES, MAX_RECORD, Noted
from endwell.protocol.replay import replay
from endwell.wire.codec import Codec
from endwell.wire.hixie import Hixie

from .core import RESET, connection, drain_outbox, frame, opened
from .test_two_cores import OPTIONS, TwoCores, TwoOldCores


def written(ending, record):
    """The ending as a dict, with a record that an ending without faults has not."""
    return {**ending.as_dict(), "record": dict(record)}


def check(core):
    """The record of an ended core, as JSON, replays to the same ending."""
    ending = core.ending
    assert (ending.record is None) is ending.ok
    record = ending.record or core.record()
    assert len(json.dumps(dict(record))) <= MAX_RECORD
    assert len(record["cues"]) <= MAX_CUES + 1
    if not record["complete"]:
        with pytest.raises(ValueError, match=r"record\.complete is false"):
            replay(written(ending, record))
        return None
    replayed = replay(json.loads(json.dumps(written(ending, record))))
    differences = replayed.differences()
    if ending.record is None:
        # A server makes a record at the end. This one was made later, and has the stalls since then.
        differences.pop("record.stalls", None)
    assert differences == {}
    assert str(replayed.ending) == str(ending)
    return replayed


def recorded():
    """A server's ending: a ping, then a Close that the peer does not answer."""
    core = opened(now=1000.5, recorder=True)
    core.tick(1020.5)
    drain_outbox(core, 1020.5)
    core.close(Close(4001, "bye"), 1021.5)
    drain_outbox(core, 1021.5)
    core.tick(1031.5)
    return core.ending.as_dict()


def without(name):
    def change(values):
        del values["record"][name]

    return change


def setting(**record):
    return lambda values: values["record"].update(record)


def cue(*parts):
    return lambda values: values["record"]["cues"].__setitem__(1, list(parts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("record"), "record is absent: the option recorder was off"),
        (lambda values: values.update(record=[]), "record must be a dict, not list"),
        (lambda values: values.update(cause="magic"), "cause has an unknown value: 'magic'"),
        (setting(format=2), "record.format 2 is unknown: this version of endwell reads format 1"),
        (setting(format="1"), "record.format must be an int, not str"),
        (without("format"), "record.format must be an int, not NoneType"),
        (setting(role="proxy"), "record.role must be client or server, not 'proxy'"),
        (setting(protocol={}), "record.protocol.close must be a bool, not NoneType"),
        (setting(protocol=None), "record.protocol is absent, and the connection was opened"),
        (setting(options={"close_timeout": -1}), "record.options: close_timeout must be positive and finite"),
        (setting(options={"close_timeout": "1"}), "record.options.close_timeout must be a number, not str"),
        (setting(close=[1006, ""]), "record.close: code 1006 may not be sent in a Close"),
        (setting(close=[1000]), "record.close must have 2 to 2 items, not 1"),
        (setting(close_size=2**40), "record.close_size must be at most 131"),
        (setting(dropped=2**63), "record.dropped is too large"),
        (setting(dropped=10**30), "record.dropped must be below 2**64"),
        (setting(errors={"last": ["magic", None, False]}), "record.errors.last: unknown kind 'magic'"),
        (setting(errors={"first": ["peer", "peer_vanished", False]}), "a peer's error has a close code"),
        (setting(cues=[[1, "opened"]] * 66), "record.cues must have 0 to 65 items, not 66"),
        (setting(cues="many"), "record.cues must be a list, not str"),
        (cue(1.0, "__init__"), "record.cues[1]: unknown cue '__init__'"),
        (cue(1.0, "time_up"), "record.cues[1]: a time_up has 1 details"),
        (cue(1.0, "close", "magic"), "record.cues[1]: details has an unknown value: 'magic'"),
        (cue("now", "ping"), "record.cues[1]: time must be a number, not str"),
        (cue(1.0, "ping", {"in": [1]}), "record.cues[1]: in must have 2 to 2 items, not 1"),
        (cue(1.0, "ping", {"unsent": -1}), "record.cues[1]: unsent must be 0 or more, not -1"),
        (cue(1.0, "lost", 0), "record.errors.last is absent, and the record has a cue with it"),
        (cue(1.0, "fault"), "record.errors.first must be of the kind peer"),
        (cue(1.0, "peer_close"), "received is absent, and the record has a Close of the peer"),
    ],
)
def test_a_wrong_value_is_named(change, message):
    values = recorded()
    change(values)
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        replay(values)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda cues: cues.pop(1), "record.last_ping"),
        (lambda cues: cues.insert(1, cues[1]), "record.cues[2]"),
        (lambda cues: cues[0].__setitem__(0, 1005.5), "record.opened"),
        (lambda cues: cues[1].__setitem__(0, 1015.5), "record.cues[1]"),
        (lambda cues: cues[1].__setitem__(1, "pong"), "record.cues[1]"),
        (lambda cues: cues[1].__setitem__(1, "handled"), "record.cues[1]"),
        (lambda cues: cues.insert(2, cues[2][:3]), "record.cues[3]"),
        (lambda cues: cues[3].__setitem__(1, "ping") or cues[3].pop(2), "record.cues[3]"),
        (lambda cues: cues.append([1031.5, "eof"]), "record.cues[4]"),
    ],
)
def test_a_changed_cue_is_a_difference(change, field):
    """The ending alone does not show it: a ping that was not due has no effect on how the connection ends."""
    values = json.loads(json.dumps(recorded()))
    change(values["record"]["cues"])
    assert field in replay(values).differences()


def test_more_traffic_than_that_of_the_ending_is_refused():
    values = json.loads(json.dumps(recorded()))
    values["record"]["cues"][1][2:] = [{"in": [0, 7]}]
    with pytest.raises(ValueError, match=r"record\.cues have more bytes_in than the ending"):
        replay(values)


@pytest.mark.parametrize("time", [-1e308, 1e10, 1e308])
def test_a_time_that_no_clock_has_is_an_ordinary_time(time):
    """Its nanoseconds are infinite, or have more than 64 bits."""
    values = json.loads(json.dumps(recorded()))
    for cue in values["record"]["cues"]:
        cue[0] = time
    assert replay(values).steps[-1].at == time - 1000.5


def test_the_replay_counts_messages_and_bytes_itself():
    values = json.loads(json.dumps(recorded()))
    values.update(messages_in=3, bytes_in=30, messages_out=4)
    assert replay(values).differences() == {
        "messages_in": (3, 0),
        "bytes_in": (30, 0),
        "messages_out": (4, 0),
    }


def test_a_record_of_a_connection_that_never_opened_differs():
    values = json.loads(json.dumps(recorded()))
    values["record"]["cues"][:3] = []
    differences = replay(values).differences()
    assert differences["record.cues"] == (values["record"]["cues"], None)


def test_a_record_whose_cues_do_not_end_the_connection_has_no_ending():
    values = recorded()
    del values["record"]["cues"][2:]
    replayed = replay(values)
    assert replayed.ending is None
    assert replayed.differences()["cause"] == ("app_closed", None)
    with pytest.raises(ValueError, match="do not end the connection"):
        testing.replay(values)


def test_a_record_with_an_error_that_is_a_timeout_replays():
    core = opened(now=1000.5, recorder=True)
    core.lost(TimeoutError(errno.ETIMEDOUT, "Connection timed out"), 1001.5)
    assert core.ending.tcp is TcpEnd.TIMEOUT
    check(core)


def test_a_peer_whose_window_is_closed_replays():
    core = opened(now=1000.5, recorder=True)
    core.lost(WindowClosed(errno.ETIMEDOUT, "Connection timed out"), 1001.5)
    assert core.ending.cause is Cause.WRITE_TIMEOUT
    check(core)


def test_a_write_that_fails_after_the_end_replays():
    """TLS that fails: the driver tells both."""
    core = connection(client=True, now=1000.5, recorder=True)
    core.lost(RESET, 1001.5, tls=True)
    core.broken(RESET, 1001.5)
    check(core)


def test_an_error_that_is_none_of_the_system_replays():
    core = opened(now=1000.5, recorder=True)
    core.lost(MemoryError("no"), 1001.5, tls=True)
    assert core.ending.cause is Cause.TLS_ERROR
    check(core)


def test_a_failed_opening_with_an_answer_replays():
    core = connection(client=True, now=1000.5, recorder=True)
    core.fail_opening(Cause.HANDSHAKE_REJECTED, 1001.5, initiator=Initiator.PEER)
    assert core.ending.initiator is Initiator.PEER
    check(core)


def test_a_client_whose_opening_takes_too_long_replays():
    core = connection(client=True, now=1000.5, recorder=True)
    core.connected = True
    core.stalled(1001.5, 2.0, 1003.5)
    core.tick(core.deadline)
    assert core.ending.tcp is TcpEnd.TIMEOUT
    replayed = check(core)
    assert replayed.steps[-1].rows[0].why == "open_timeout is 10 s"


@pytest.mark.parametrize("noted", Noted)
def test_a_cue_that_no_opening_connection_gets_is_no_crash(noted):
    """A file that was changed by hand: it ends the opening in a way that the code does not have."""
    core = connection(client=True, now=1000.5, recorder=True)
    core.fail_opening(Cause.NETWORK_ERROR, 1001.5, RESET)
    values = written(core.ending, core.record())
    details = {
        Noted.DUE: [0.0, 0.0, 0.0, 0.0],
        Noted.DUE_UNREAD: [0.0, 0.0, 0.0, 0.0],
        Noted.STALLED: [1000.5, 0.5, 0.0, 0.0, 0.0],
        Noted.PONGS: [1],
        Noted.CLOSE: ["app_closed"],
        Noted.FAILED: ["network_error", "network"],
        Noted.LOST: [0],
        Noted.TIME_UP: [0.0],
    }
    values["record"]["cues"] = [[1001.5, noted.name.lower(), *details.get(noted, ())]]
    try:
        replay(values)
    except ValueError:
        pass


def test_stalls_before_a_server_opened_replay():
    core = connection(now=1000.5, recorder=True)
    core.stalled(1001.5, 2.0, 1003.5)
    core.accept(Codec(False), 1004.5)
    core.lost(RESET, 1005.5)
    assert [cue[1] for cue in core.ending.record["cues"]] == ["stalled", "opened", "lost"]
    check(core)


def test_a_pong_for_several_pings_replays_with_its_latency():
    core = opened(now=1000.5, recorder=True)
    core.ping(b"a", 1001.0)
    core.ping(b"b", 1002.0)
    core.receive(frame(core, "pong", b"b"), 1002.25)
    core.lost(RESET, 1005.5)
    assert core.ending.latency == 0.25
    replayed = check(core)
    assert replayed.ending.latency == 0.25


def test_a_busy_application_and_its_answer_replay():
    core = opened(now=1000.5, recorder=True)
    core.receive(frame(core, "message", "question"), 1001.5)
    core.receive(frame(core, "close", 4001, "bye"), 1001.5)
    core.inbox.clear()
    core.eof(1001.6)
    core.send("answer", 1001.7)
    core.handled(1001.8)
    drain_outbox(core, 1001.9)
    assert core.ending.clean
    replayed = check(core)
    rows = [row for step in replayed.steps for row in step.rows]
    assert [(row.before.name, row.cue.name, row.after.name) for row in rows] == [
        ("OPENING", "ACCEPTED", "OPEN"),
        ("OPEN", "CLOSE_BEHIND", "ANSWERING"),
        ("ANSWERING", "EOF", "ANSWERING"),
        ("ANSWERING", "HANDLED", "LINGERING"),
        ("LINGERING", "EOF", "ENDED"),
    ]
    assert rows[3].close == Close(4001, "bye")


@pytest.mark.parametrize("client", [False, True])
def test_tcp_that_lingers_replays(client):
    core = opened(client, now=1000.5, recorder=True)
    core.receive(frame(core, "close", 4001, "bye"), 1001.5)
    drain_outbox(core, 1001.5)
    core.tick(core.deadline)
    assert core.ending.tcp is (TcpEnd.TIMEOUT if client else TcpEnd.OPEN)
    replayed = check(core)
    assert replayed.steps[-1].rows[0].why == "linger_timeout is 1 s"


def test_tcp_that_ended_without_a_reason_replays():
    core = opened(now=1000.5, recorder=True)
    core.gone(1001.5)
    check(core)


def test_a_message_of_many_sizes_that_is_not_accepted_replays():
    core = opened(now=1000.5, recorder=True, ping_interval=None)
    core.send("x" * 100, 1001.5)
    core.sent(0, 1001.5)
    core.tick(1031.5)
    assert core.ending.cause is Cause.WRITE_TIMEOUT
    replayed = check(core)
    assert replayed.steps[-1].rows[0].why == (
        "102 bytes wait to be sent, and none was accepted for write_timeout, 30 s"
    )


def test_a_message_is_no_part_of_a_replay_so_the_end_of_many_takes_few_steps():
    core = opened(now=1000.5, recorder=True, ping_interval=None)
    for number in range(1000):
        core.receive(frame(core, "message", "x"), 1001.5 + number)
        core.inbox.clear()
        core.send("y", 1001.75 + number)
        drain_outbox(core, 1001.8 + number)
    core.lost(RESET, 3000.5)
    replayed = check(core)
    assert [step.noted.name for step in replayed.steps] == ["OPENED", "LOST"]
    assert replayed.steps[1].received[0] == replayed.steps[1].sent[0] == 1000


def test_the_last_write_before_an_abort_changes_no_ending():
    core = opened(now=1000.5, recorder=True, write_timeout=4, ping_interval=None)
    core.send("x" * 100, 1000.5)
    core.sent(10, 1000.5)
    core.tick(1010.5)  # 6 s late: the process was stalled
    core.tick(1020.5)
    assert core.abort
    core.sent(core.outbox.size, 1020.5)
    assert core.ending.stalled > 0
    check(core)


def failing(core, now):
    """A message that nobody has read, and the start of a frame that breaks a rule: the core fails 10 ms later."""
    core.receive(frame(core, "message", "unread") + b"\xf1\x80", now)
    assert core.is_open


def test_a_ping_between_a_fault_and_its_effect_replays():
    core = opened(now=1000.5, recorder=True)
    failing(core, 1001.5)
    core.ping(None, 1001.505)
    core.tick(1001.51)
    core.lost(RESET, 1002.5)
    check(core)


def test_a_pong_in_the_read_of_a_fault_replays_and_does_not_bring_the_fault_forward():
    core = opened(now=1000.5, recorder=True)
    payload = core.ping(None, 1000.5)
    core.receive(frame(core, "message", "unread") + frame(core, "pong", payload) + b"\xf1\x80", 1001.5)
    assert core.is_open
    core.tick(1001.51)
    core.lost(RESET, 1002.5)
    assert core.ending.latency == 1
    check(core)


def test_a_stall_between_a_fault_and_its_effect_replays_and_does_not_bring_it_forward():
    core = opened(now=1000.5, recorder=True)
    failing(core, 1001.5)
    core.stalled(1001.5, 3.0, 1004.5)
    assert core.is_open
    core.tick(1004.51)
    core.lost(RESET, 1005.5)
    check(core)


@pytest.mark.parametrize("number", [0, 10, 99])
def test_a_pong_for_pings_that_the_record_has_not_replays(number):
    core = opened(now=1000.5, recorder=True)
    payloads = [core.ping(None, 1000.5 + at / 8) for at in range(100)]
    core.receive(frame(core, "pong", payloads[number]), 1014.5)
    core.close(Close(4001, "bye"), 1015.5)
    core.receive(frame(core, "pong", payloads[-1]), 1016.5)
    core.lost(RESET, 1017.5)
    assert core.ending.record["dropped"] > 30
    assert check(core).ending.latency == core.ending.latency


def test_messages_that_were_dropped_before_a_lingering_end_replay():
    core = opened(now=1000.5, recorder=True, linger_timeout=1, ping_interval=None)
    core.pause(Pause.DELIVERY)
    core.close(Close(4001, "bye"), 1001.5)
    core.receive(frame(core, "message", "late") + frame(core, "close", 4001), 1002.5)
    drain_outbox(core, 1002.5)
    core.tick(1003.5)
    assert core.over
    assert not core.ended
    assert core.ending.dropped_messages == 1
    check(core)


def test_data_at_the_end_of_a_stall_replay():
    core = opened(now=1000.5, recorder=True)
    core.receive(frame(core, "message", "alive"), 1004.5)
    core.stalled(1001.5, 3.0, 1004.5)
    core.receive(frame(core, "message", "alive"), 1004.5)
    core.lost(RESET, 1005.5)
    assert core.ending.stalled == 0
    check(core)


def test_data_that_came_with_the_opening_of_an_old_protocol_replay():
    core = connection(now=1000.5, recorder=True)
    core.stalled(1000.5, 2.0, 1002.5)
    core.accept(Hixie(False, None), 1002.5)
    core.receive(b"\0alive\xff", 1002.5)
    core.lost(RESET, 1005.5)
    assert core.ending.stalled == 0
    check(core)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=6), children, max_size=4)
    ),
    max_leaves=8,
)


@given(st.data())
def test_no_change_of_a_record_does_anything_but_an_error_of_its_value(data):
    """Whatever a file says, the replay ends, with an ending or with TypeError or ValueError."""
    values = json.loads(json.dumps(recorded()))
    for _ in range(data.draw(st.integers(1, 3))):
        place = values if data.draw(st.booleans()) else values["record"]
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and data.draw(st.booleans()):
                place = place[key]
                continue
            place[key] = data.draw(JSON)
            break
        if not isinstance(values.get("record"), dict):
            break
    try:
        replay(values)
    except (TypeError, ValueError):
        pass


def test_a_record_without_the_beginning_of_the_closing_is_not_replayed():
    core = opened(now=1000.5, recorder=True)
    core.close(Close(4001, "bye"), 1001.5)
    for number in range(20):
        core.stalled(1002.5 + 2 * number, 1.5, 1004.5 + 2 * number)
    core.lost(RESET, 1050.5)
    assert core.ending.record["complete"] is False
    check(core)


def test_stalls_of_an_open_connection_that_were_dropped_do_not_matter():
    core = opened(now=1000.5, recorder=True)
    for number in range(40):
        core.stalled(1002.5 + 2 * number, 1.5, 1004.5 + 2 * number)
    core.lost(RESET, 1150.5)
    assert core.ending.record["dropped"] > 20
    assert core.ending.stalled == 60
    assert check(core).ending.stalled == 60


def test_a_stall_that_moves_the_deadline_of_a_ping_that_was_dropped_is_not_replayed():
    state = RecordedCores()
    state.wait(seconds=5.984560080450337)
    for _ in range(4):
        state.ping(which=0)
    for waited, stalled in ((0.0, 2.0), (5.0, 1.0), (0.0, 2.0), (0.0, 2.0), (0.0, 2.0)):
        state.wait(seconds=waited)
        state.stalled(seconds=stalled, which=0)
    state.teardown()
    record = state.side(0).core.ending.record
    assert (record["dropped"] > 0, record["complete"]) == (True, False)


class RecordedCores(TwoCores):
    """Whatever happens to two cores, and in whatever order, their records replay."""

    options = OPTIONS.replace(recorder=True, idle_timeout=40, stale_after=25)

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.sides = [type(side)(side.core.client, self.codec, self.options, self.now) for side in self.sides]

    @rule(which=st.integers(0, 1))
    def handled(self, which):
        self.side(which).core.handled(self.now)

    @rule(which=st.integers(0, 1), seconds=st.floats(0.5, 5))
    def stalled(self, which, seconds):
        """One of the processes did not run for a while."""
        began = self.now
        self.now += seconds
        self.side(which).core.stalled(began, seconds, self.now)

    @rule(which=st.integers(0, 1))
    def pause(self, which):
        self.side(which).core.pause(Pause.DELIVERY)

    @rule(which=st.integers(0, 1))
    def resume(self, which):
        self.side(which).core.resume(Pause.DELIVERY)

    @rule(which=st.integers(0, 1), seconds=st.floats(-1, 60))
    def authorize(self, which, seconds):
        self.side(which).core.authorize(self.now + seconds)

    def teardown(self):
        super().teardown()
        for side in self.sides:
            check(side.core)


def test_a_stall_after_the_end_changes_no_ending():
    state = RecordedOldCores()
    state.close(code=1000, which=1)
    state.write(room=2, which=1)
    state.deliver(count=2, which=1)
    state.write(room=2, which=0)
    state.wait(seconds=1.0)
    assert state.sides[0].core.over
    state.stalled(seconds=2.0, which=0)
    state.teardown()


class RecordedOldCores(RecordedCores, TwoOldCores):
    codec = Hixie


TestRecordedCores = RecordedCores.TestCase
TestRecordedCores.settings = settings(stateful_step_count=30)
TestRecordedOldCores = RecordedOldCores.TestCase
TestRecordedOldCores.settings = settings(stateful_step_count=30)
