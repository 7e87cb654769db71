"""New bearer tokens on an open connection."""

from __future__ import annotations

from endwell.options import Options
from endwell.protocol.connection import Connection
from endwell.protocol.control import ControlChannel
from endwell.protocol.renewal import ClientRenewal, ServerRenewal
from endwell.wire.codec import Codec
from tests.protocol.core import frame, sent_frames

FIRST = "\x1abearer first"


def opened(user, client=False):
    core = Connection(client, Options(), 0.0)
    core.accept(Codec(client), 0.0, ControlChannel(user))
    return core


def test_a_server_greets_with_the_first_token_and_takes_new_ones_out_of_the_messages():
    tokens = []
    core = opened(ServerRenewal("first", tokens.append))
    assert sent_frames(core) == [FIRST]
    sent = ["one", "\x1abearer second", b"\x1abearer no", "\x1abearer third", "bearer fourth"]
    core.receive(b"".join(frame(core, "message", message) for message in sent), 1.0)
    assert tokens == [["second", "third"]]
    assert list(core.inbox) == ["one", b"\x1abearer no", "bearer fourth"]
    assert (sent_frames(core), core.messages_in) == ([], 3)


def test_a_client_is_told_once_that_the_server_takes_new_tokens():
    greeted = []
    core = opened(ClientRenewal("first", lambda: greeted.append(True)), client=True)
    assert sent_frames(core) == []
    for _ in range(2):
        core.receive(frame(core, "message", FIRST), 1.0)
    assert greeted == [True]
    # Only the first is the greeting. The second is a message of the application.
    assert (list(core.inbox), core.messages_in) == ([FIRST], 1)


def test_two_greetings_in_one_read_tell_the_client_once():
    greeted = []
    core = opened(ClientRenewal("first", lambda: greeted.append(True)), client=True)
    core.receive(frame(core, "message", FIRST) * 2, 1.0)
    assert greeted == [True]


def test_a_greeting_with_another_token_is_a_message():
    greeted = []
    core = opened(ClientRenewal("first", lambda: greeted.append(True)), client=True)
    core.receive(frame(core, "message", "\x1abearer other"), 1.0)
    assert (greeted, list(core.inbox)) == ([], ["\x1abearer other"])


def test_both_sides_understand_each_other():
    tokens, greeted = [], []
    server = opened(ServerRenewal("first", tokens.extend))
    client = opened(ClientRenewal("first", lambda: greeted.append(True)), client=True)
    client.receive(b"".join(server.outbox.buffers()), 1.0)
    assert greeted == [True]
    client.say("\x1abearer second")
    server.receive(b"".join(client.outbox.buffers()), 2.0)
    assert tokens == ["second"]
    assert (client.messages_out, client.messages_in, server.messages_in, server.messages_out) == (0, 0, 0, 0)
