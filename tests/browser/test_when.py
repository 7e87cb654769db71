"""The programs for pages of docs/howto/when.md show what the page says, in Node.js with a virtual clock."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.test_module import ROOT
from tests.browser.test_virtual import told

PAGE = (ROOT / "docs" / "howto" / "when.md").read_text()
PROGRAMS = {
    section.partition("\n")[0]: re.findall(r"^```js\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    for section in PAGE.split("\n## ")[1:]
}
BEFORE = """
const shown = [];
const show = (text) => shown.push(text);
const paths = () => world.sockets.map(({ url }) => new URL(url).pathname + new URL(url).search);
const sent = [];
WebSocket.prototype.send = (data) => sent.push(data);
"""
FETCH = """
let calls = 0;
globalThis.fetch = async (...how) => {
  calls++;
  return calls === 3
    ? { status: 401, json: async () => ({}) }
    : { status: 200, json: async () => ({ value: `token-${calls}`, until: Date.now() + 900_000 }) };
};
"""
#: What happens to the program of each section, and what it leads to.
STEPS: dict[str, tuple[str, Any]] = {
    "A token expires": (
        """
        for (let i = 0; i < 5; i++) await world.settled();
        world.socket().open();
        world.socket().message("\\u001abearer token-1");
        await world.pass(725);
        const renewed = sent.at(-1);
        world.socket().end(3000, "authorization expired: fetch a new token; retry 0-1s");
        await world.pass(100);
        return [renewed, calls, shown, ws.state.phase];
        """,
        ["\u001abearer token-2", 3, ["sign in again"], "stopped"],
    ),
    "The server is full: 503": (
        'world.socket().open(); world.socket().end(1013, "full; retry 20-40s"); return shown;',
        ["full; next attempt in 20 s"],
    ),
    "A laptop sleeps": (
        """
        await world.settled();
        world.socket().open();
        world.socket().message("position f3Zk0q:4");
        world.socket().message("news");
        world.socket().message("\\u0006");
        await world.pass(45);
        return [shown, ws.ending.cause, paths()];
        """,
        [
            ["news"],
            "keepalive_timeout",
            ["/news?endwell=heartbeat", "/news?since=f3Zk0q:5&endwell=heartbeat"],
        ],
    ),
    "A page is hidden": ("world.socket().open(); return shown;", ["open"]),
    "The server is deployed": (
        """
        world.socket().open();
        world.socket().message("a done");
        world.socket().end(1012, "server restarting; retry 1-2s");
        await world.pass(1.5);
        world.socket().open();
        world.socket().message("b done");
        world.socket().message("c done");
        return [sent, shown];
        """,
        [["a", "b", "b", "c"], ["a done", "b done", "c done"]],
    ),
    "A feed stops": (
        """
        await world.settled();
        world.socket().open();
        await world.pass(25);
        world.socket().message("news");
        await world.pass(29);
        const before = shown.length;
        await world.pass(5);
        return [before, shown, world.sockets.map(({ url }) => new URL(url).host)];
        """,
        [1, ["news", "the feed has stopped; trying another server"], ["a.example", "b.example"]],
    ),
    "A client sends too much": (
        """
        world.socket().open();
        world.socket().end(1008, "messages came faster than allowed; retry 2-4s");
        await world.pass(100);
        return [shown, world.sockets.length];
        """,
        [["the server does not want this: 1008 messages came faster than allowed; retry 2-4s"], 1],
    ),
}


def test_each_program_has_steps():
    assert {section for section, programs in PROGRAMS.items() if programs} == {*STEPS}
    assert all(len(programs) <= 1 for programs in PROGRAMS.values())


@pytest.mark.parametrize("section", STEPS)
def test_a_program_shows_what_happened(section: str):
    (program,) = PROGRAMS[section]
    steps, expected = STEPS[section]
    assert told(f"{BEFORE}{FETCH if 'fetch(' in program else ''}{program}{steps}") == expected
