"""The module in Node.js with a virtual clock: the list of URLs, ``staleAfter`` and ``state``, to the second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_module import MODULE, run

VIRTUAL = Path(__file__).with_name("virtual.mjs")
NOTED = """
const noted = [];
const note = (ws) => {
  ws.onstate = ({ state }) => noted.push([world.now(), state.phase, state.until && state.until - world.epoch / 1000,
                                          state.reason, state.last?.cause ?? null]);
  ws.onopen = () => noted.push("open");
  ws.onending = () => noted.push("ending");
};
"""


def told(program: str) -> Any:
    """What ``program`` returns: the body of an async function with ``world`` and ``ReconnectingWebSocket``."""
    return json.loads(run("node", str(VIRTUAL), str(MODULE), program))


def test_the_state_tells_each_phase_before_the_event_that_belongs_to_it():
    assert told(
        NOTED
        + """
        const ws = new ReconnectingWebSocket("ws://a/");
        note(ws);
        const first = ws.state;
        world.socket().open();
        await world.pass(20);
        world.socket().end(1012);
        await world.pass(1);
        world.socket().end();
        await world.pass(2);
        ws.close();
        return [first, noted];
        """
    ) == [
        {"phase": "connecting", "until": None, "reason": None, "last": None},
        [
            [0, "open", None, None, None],
            "open",
            [20, "waiting", 20, None, "peer_closed"],
            "ending",
            [20, "connecting", None, None, "peer_closed"],
            [21, "waiting", 26, None, "handshake_failed"],
            "ending",
            [23, "stopped", None, "done", "handshake_failed"],
        ],
    ]


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ("world.socket().end(1008)", "refused"),
        ("world.socket().end(1013)", "retries"),
        ("ws.close()", "done"),
    ],
)
def test_the_state_says_why_there_is_no_further_attempt(ends: str, reason: str):
    assert told(
        f"""
        const ws = new ReconnectingWebSocket("ws://a/", {{ maxRetries: 0 }});
        const states = [];
        ws.addEventListener("state", ({{ state }}) => states.push(state === ws.state && [state.phase, state.reason]));
        world.socket().open();
        {ends};
        await world.pass(100);
        return states;
        """
    ) == [["open", None], ["stopped", reason]]


def test_reconnect_after_the_end_begins_a_new_state():
    assert told(
        """
        const ws = new ReconnectingWebSocket("ws://a/");
        const states = [];
        ws.onstate = ({ state }) => states.push([state.phase, state.reason]);
        world.socket().open();
        world.socket().end(1000);
        ws.close();
        ws.reconnect();
        return states;
        """
    ) == [["open", None], ["stopped", "done"], ["connecting", None]]


URLS = """
const ws = new ReconnectingWebSocket(["ws://a/", () => "ws://b/", async () => "ws://c/"], { pingInterval: 0 });
const tried = () => world.sockets.map(({ url }) => new URL(url).host).join("");
const fail = async (...how) => { world.socket().end(...how); await world.attempt(); };
await world.settled();
"""


def test_each_failure_leads_to_the_next_url_and_after_the_last_to_the_first():
    assert told(URLS + "for (let i = 0; i < 4; i++) await fail(); return tried();") == "abcab"


@pytest.mark.parametrize(("lasted", "expected"), [(9, "abc"), (11, "aba")])
def test_a_stable_connection_leads_to_the_first_url(lasted: int, expected: str):
    program = f"""
        await fail();
        world.socket().open();
        await world.pass({lasted});
        await fail(1012);
        return tried();
    """
    assert told(URLS + program) == expected


def test_reconnect_begins_with_the_first_url():
    assert told(URLS + "world.socket().end(); ws.reconnect(); await world.settled(); return tried()") == "aa"


def test_an_invalid_url_in_a_list_is_a_failed_attempt():
    assert told(
        """
        const ws = new ReconnectingWebSocket(["ws://[", "ws://b/"], { pingInterval: 0 });
        const errors = [];
        ws.onending = ({ error, ending }) => errors.push(error instanceof TypeError && ending.cause);
        await world.attempt();
        return [errors, world.sockets.map(({ url }) => url)];
        """
    ) == [["handshake_failed"], ["ws://b/"]]


def test_an_empty_list_is_a_type_error():
    assert (
        told("try { new ReconnectingWebSocket([]); } catch (error) { return String(error); }")
        == "TypeError: no address"
    )


STALE = """
const ws = new ReconnectingWebSocket("ws://a/", { staleAfter: 30, pingInterval: 5, pingTimeout: 50 });
const endings = [];
ws.onending = ({ ending, wait }) => endings.push([world.now(), ending.cause, ending.code, ending.reason, wait]);
world.socket().open();
"""


def test_without_a_message_for_stale_after_the_connection_is_replaced():
    program = """
        await world.pass(10);
        world.socket().message("news");
        const first = world.socket();
        await world.pass(29.9);
        const before = endings.length;
        await world.pass(0.2);
        return [before, endings, first.closed[0], world.sockets.length];
    """
    assert told(STALE + program) == [
        0,
        [[40, "idle_timeout", 3008, "no message", 0]],
        [3008, "no message"],
        2,
    ]


def test_an_answer_to_the_heartbeat_is_not_a_message():
    program = """
        for (let i = 0; i < 15; i++) { world.socket().message("\\u0006"); await world.pass(2); }
        return endings[0];
    """
    assert told(STALE + program) == [30, "idle_timeout", 3008, "no message", 0]


def test_stale_connections_are_replaced_with_back_off():
    program = """
        for (let i = 0; i < 2; i++) { await world.attempt(); world.socket().open(); }
        await world.attempt();
        return endings.map(([when, cause, , , wait]) => [Math.round(when), cause, wait]);
    """
    short = STALE.replace("staleAfter: 30", "staleAfter: 5")
    assert told(short + program) == [
        [5, "idle_timeout", 0],
        [10, "idle_timeout", 5],
        [20, "idle_timeout", 5],
    ]


def test_after_a_sleep_the_messages_that_wait_are_read_before_the_connection_is_judged():
    program = """
        await world.pass(1);
        world.sleep(600);
        await world.pass(0.5);
        world.socket().message("waited in the event loop");
        await world.pass(29.9);
        const before = endings.length;
        await world.pass(0.5);
        return [before, endings.length];
    """
    assert told(STALE + program) == [0, 1]


@pytest.mark.parametrize("value", ["0", "Infinity", "1e9"])
def test_no_limit_and_a_long_one_close_nothing(value: str):
    program = "await world.pass(3e6); return endings.length;"
    free = STALE.replace("staleAfter: 30", f"staleAfter: {value}").replace(
        "pingInterval: 5", "pingInterval: 0"
    )
    assert told(free + program) == 0


def test_close_ends_the_wait_for_messages():
    program = "ws.close(); world.socket().end(1000); await world.pass(100); return endings;"
    assert told(STALE + program) == [[0, "app_closed", 1000, "", None]]


@pytest.mark.parametrize("url", ['"ws://a/"', "() => new Promise(() => {})"])
def test_close_before_the_connection_is_open_is_final_whatever_codes_say(url: str):
    assert told(
        NOTED
        + f"""
        const ws = new ReconnectingWebSocket({url}, {{ codes: {{ 1006: "now" }}, openTimeout: 5, closeTimeout: 1 }});
        note(ws);
        ws.close();
        await world.pass(100);
        return [ws.state.phase, ws.state.reason, ws.readyState, noted.length];
        """
    ) == ["stopped", "done", 3, 2]


def test_an_undefined_option_has_its_default_and_a_time_may_be_infinite():
    assert told(
        """
        const never = Infinity;
        const options = { base: undefined, maxDelay: null, openTimeout: never, pingInterval: never, protocols: "chat" };
        const ws = new ReconnectingWebSocket("ws://a/", options);
        const waits = [];
        ws.onending = ({ wait }) => waits.push(wait);
        await world.pass(3600);
        world.socket().end();
        await world.pass(4.9);
        const before = world.sockets.length;
        await world.pass(0.2);
        return [waits, before, world.sockets.length];
        """
    ) == [[5], 1, 2]
