"""What the screen of ``endwell top`` shows, and what its keys do."""

from __future__ import annotations

import json

import pytest

from endwell.cli.top.layout import width_of
from endwell.cli.top.tables import Table, report
from endwell.cli.top.view import View
from endwell.server.dashboard.feed import MAX_ASK


def worker(name="w1", **fields):
    return {
        "worker": name,
        "pid": 10,
        "host": "host",
        "uptime": 100.0,
        "connections": 2,
        "open": 2,
        "closing": 1,
        "lingering": 0,
        "messages_in": 10,
        "messages_out": 20,
        "bytes_in": 1000,
        "bytes_out": 2000,
        "slow": 0,
        "stalled_seconds": 0.0,
        "memory": 30_000_000,
        "state": "serving",
        "drain": None,
        **fields,
    }


def summary(at=6000.0, *workers, **fields):
    return {
        "at": at,
        "workers": list(workers or [worker()]),
        "connections": 3,
        "by_route": {"/": 3},
        "endings": {
            "minutes": [[100, {"peer_closed": 4}, {"1000": 4}]],
            "hours": [],
            "by_cause": {"peer_closed": 4},
            "by_code": {},
        },
        "rooms": {"count": 1, "largest": [["a", 2]]},
        "bus": {"kind": "local", "connected": True, "disconnections": 0, "lost_publications": 0},
        "totals": {"messages_in": 10, "messages_out": 20, "bytes_in": 1000, "bytes_out": 2000},
        "missing_workers": 0,
        **fields,
    }


def row(number=1, **fields):
    return {
        "connection": f"w1:{number}",
        "worker": "w1",
        "key": f"key {number}",
        "subject": None,
        "address": f"10.0.0.{number}:1",
        "route": "/chat/{name}",
        "path": "/chat/x",
        "age": 100.0 * number,
        "idle": 1.0,
        "latency": None,
        "queued": 0,
        "messages_in": 1,
        "messages_out": 2,
        "bytes_in": 3,
        "bytes_out": 4,
        "state": "open",
        "subprotocol": None,
        "compressed": True,
        "user_agent": "agent",
        "rooms": [],
        **fields,
    }


def ending(**fields):
    return {
        "at": 6000.0,
        "worker": "w1",
        "connection": "w1:1",
        "key": "ann",
        "subject": None,
        "address": "10.0.0.1:1",
        "route": "/",
        "sentence": "peer closed with 1000 NORMAL_CLOSURE",
        "ending": {"cause": "peer_closed", "code": 1000},
        **fields,
    }


@pytest.fixture
def view():
    view = View("http://server/_endwell")
    view.trouble = ""
    view.summarize(summary())
    view.listed(Table.CONNECTIONS, {"rows": [row(number) for number in range(1, 4)], "total": 3})
    return view


def screen(view, columns=200, height=24):
    lines = view.lines(columns, height)
    assert len(lines) == height
    assert {width_of(line.text) for line in lines} == {columns}
    return [line.text.rstrip() for line in lines]


def test_the_screen_shows_the_summary_and_the_connections(view):
    text = "\n".join(screen(view))
    assert "endwell top  http://server/_endwell" in text
    assert "3 connections (1 closing, 0 lingering, 0 slow)" in text
    assert "1 workers; 1 rooms; bus local connected" in text
    assert "endings: peer_closed 4" in text
    assert "10.0.0.2:1            key 2          /chat/{name}       3 min" in text
    assert "agev" in text, "the column of the sort, and its direction"


@pytest.mark.parametrize("columns", [1, 20, 79, 80, 81, 132, 300])
@pytest.mark.parametrize("height", [3, 10, 24, 60])
def test_the_screen_has_the_size_of_the_terminal(view, columns, height):
    for keys in ("", "\t", "\t", "\t", "\r"):
        view.type(keys)
        screen(view, columns, height)


def test_rates_are_those_since_the_last_summary_of_workers_that_are_still_there(view):
    view.summarize(
        summary(
            6002.0,
            worker(messages_in=30, bytes_out=12_000),
            worker("w2", messages_in=10**6),
            missing_workers=1,
        )
    )
    text = "\n".join(screen(view))
    assert "in 10 msg/s, 0B/s; out 0 msg/s, 5.0 kB/s" in text
    assert "2 workers, 1 without an answer" in text


def test_the_progress_of_a_drain_is_shown(view):
    drain = {"phase": "last_call", "seconds_left": 12.0, "open": 3, "ended": 4, "deadline": 25}
    view.summarize(summary(6002.0, worker(drain=drain, state="draining")))
    assert "worker w1 drains: last call, 3 open, 4 ended, 12.0 s left" in "\n".join(screen(view))
    view.type("\t\t")
    assert "draining: last_call, 12.0 s left" in "\n".join(screen(view))


def test_the_keys_choose_the_table_the_order_and_what_is_searched(view):
    assert view.wanted() == {
        "ask": "list", "search": None, "limit": 200, "sort": "age", "descending": True, "slow": False,
    }  # fmt: skip
    assert view.type("r")
    assert view.wanted()["descending"] is False
    assert view.type(">")
    assert (view.wanted()["sort"], view.wanted()["descending"]) == ("idle", True)
    assert view.type("\x1b[D\x1b[D\x1bOD"[:9])
    assert view.type("<<")
    assert view.wanted()["sort"] in ("address", "key", "bytes_out")
    assert view.type("s")
    assert view.wanted()["slow"] is True
    assert not view.type("/an")
    assert "search: an_" in screen(view)[-1]
    assert view.type("n\r")
    assert view.wanted()["search"] == "ann"
    assert view.type("\t")
    assert view.wanted() == {"ask": "endings", "search": "ann", "limit": 200}
    assert view.type("\x1b")
    assert view.wanted()["search"] is None
    assert view.type("\t")
    assert view.wanted() is None
    assert view.type("\t")
    assert view.table is Table.CONNECTIONS


@pytest.mark.parametrize("keys", ["q", "\x03"])
def test_quit(view, keys):
    view.type(keys)
    assert view.ended


def test_a_text_that_is_searched_is_cut(view):
    view.type("/" + "\N{PILE OF POO}" * 9000 + "\r")
    assert len(json.dumps(view.wanted())) < MAX_ASK


def test_keys_of_a_text_that_is_searched_do_nothing_else(view):
    view.type("/qcdR\x1b")
    assert not view.ended
    assert view.take_asks() == []
    assert view.search == ""


def test_no_action_without_a_confirmation(view):
    view.type("c")
    assert "close the connection of key 1 with 1000? y/N" in screen(view)[-1]
    view.type("n")
    assert view.take_asks() == []
    view.type("\x1b[Bcy")
    asks = view.take_asks()
    assert asks == [{"ask": "close", "connection": "w1:2", "code": 1000, "reason": "closed by an operator"}]
    view.acted({"done": True})
    assert screen(view)[-1] == "done"
    view.acted({"error": "it has ended"})
    assert screen(view)[-1] == "error: it has ended"
    view.type("dy")
    assert view.take_asks() == []
    view.type("\t\tdy")
    assert view.take_asks() == [{"ask": "drain", "worker": "w1"}]
    view.type("cy")
    assert view.take_asks() == []
    view.type("Ry")
    assert view.take_asks() == [{"ask": "restart"}]
    view.type("R\x1b")
    assert view.take_asks() == []


def test_the_selected_row_stays_on_the_screen(view):
    rows = [row(number % 250, key=f"key {number}") for number in range(200)]
    view.listed(Table.CONNECTIONS, {"rows": rows, "total": 200})
    for keys, key in (("\x1b[F", 199), ("k", 198), ("\x1b[H", 0), ("j", 1), ("\x1b[6~", 18), ("\x1b[5~", 1)):
        view.type(keys)
        lines = view.lines(200, 24)
        [selected] = [line.text for line in lines if line.style == "1;34"]
        assert f"key {key} " in selected
    # Fewer rows than before.
    view.type("\x1b[F")
    view.listed(Table.CONNECTIONS, {"rows": rows[:2], "total": 2})
    [selected] = [line.text for line in view.lines(200, 24) if line.style == "1;34"]
    assert "key 1 " in selected
    view.listed(Table.CONNECTIONS, {"rows": [], "total": 0})
    screen(view)


def test_the_details_of_a_row(view):
    view.type("\r")
    text = "\n".join(screen(view))
    assert "  path: /chat/x" in text
    assert "  compressed: yes" in text
    assert "  rooms:" in text, "the last field"
    view.type("\x1b")
    assert "  path: /chat/x" not in "\n".join(screen(view))
    view.listed(Table.ENDINGS, {"rows": [ending()]})
    view.type("\t\r")
    text = "\n".join(screen(view))
    assert "  sentence: peer closed with 1000 NORMAL_CLOSURE" in text
    assert "  cause: peer_closed" in text


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\x9b\u202e"


def test_text_of_peers_and_of_the_server_cannot_control_the_terminal(view):
    fields = dict.fromkeys(("key", "subject", "address", "route", "path", "user_agent", "worker"), HOSTILE)
    view.listed(Table.CONNECTIONS, {"rows": [row(**fields, rooms=[HOSTILE])], "total": 1})
    view.listed(Table.ENDINGS, {"rows": [ending(sentence=HOSTILE, key=HOSTILE, address=HOSTILE)]})
    view.summarize(
        summary(
            6002.0,
            worker(HOSTILE, host=HOSTILE, state=HOSTILE),
            bus={"kind": HOSTILE, "connected": False, "disconnections": 0, "lost_publications": 1},
        )
    )
    view.trouble = HOSTILE
    for keys in ("\r", "c", "n", "\t", "\r", "\t", "\r", "d", "n"):
        view.type(keys)
        view.acted({"error": HOSTILE}) if keys == "n" else None
        for line in view.lines(300, 60):
            assert line.text.isprintable(), line


def test_an_error_of_the_server_is_shown(view):
    view.listed(Table.CONNECTIONS, {"error": "sort must be one of x"})
    assert screen(view)[-1] == "sort must be one of x"


def test_the_report_has_the_summary_and_the_rows():
    lines = report(summary(), [row()], [ending()])
    assert lines[0].startswith("3 connections (1 closing, 0 lingering, 0 slow); received 10 messages, 1.0 kB")
    assert lines[-1].endswith("peer closed with 1000 NORMAL_CLOSURE")
    assert lines[-4].split() == [
        "10.0.0.1:1", "key", "1", "/chat/{name}", "2", "min", "1.0", "s", "-", "0", "1", "2", "3", "4", "w1", "agent",
    ]  # fmt: skip
