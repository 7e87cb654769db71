"""From the answers of several processes to one."""

from __future__ import annotations

import json

import pytest

from endwell.server.dashboard.merging import merge_endings, merge_rows, merge_summaries
from endwell.server.dashboard.order import AskError, Order
from endwell.server.dashboard.totals import TABLES, Totals


def part(worker, *values, full=False):
    rows = [([value, worker, number], f"{worker} {value}") for number, value in enumerate(values)]
    return {"total": len(values), "rows": rows, "last": rows[-1][0] if full else None}


def merged(ask, *parts):
    answer = merge_rows(ask, list(parts), 0)
    return answer["rows"], answer["after"] and json.loads(answer["after"])


ASK = {"ask": "list", "sort": "queued", "limit": 3}


def test_the_rows_of_all_processes_have_one_order():
    assert merged(ASK, part("a", 1, 4), part("b", 2)) == (["a 1", "b 2", "a 4"], None)
    assert merged({**ASK, "descending": True}, part("a", 4, 1), part("b", 2))[0] == ["a 4", "b 2", "a 1"]


def test_the_cursor_is_the_last_row_if_there_are_more():
    rows, after = merged(ASK, part("a", 1, 4, 5, full=True), part("b", 2, 6))
    assert rows == ["a 1", "b 2", "a 4"]
    assert after == [4, "a", 1]


@pytest.mark.parametrize("descending", [False, True])
def test_rows_behind_the_end_of_a_process_that_has_more_wait_for_the_next_page(descending):
    sign = -1 if descending else 1
    considered = part("a", sign * 1, sign * 2, sign * 3, full=True)
    # Two of its connections have ended meanwhile.
    considered["rows"] = considered["rows"][:1]
    rows, after = merged({**ASK, "descending": descending}, considered, part("b", sign * 2, sign * 9))
    assert rows == [f"a {sign}", f"b {sign * 2}"]
    assert after == [sign * 3, "a", 2]


def test_a_process_that_answers_with_an_error_is_missing():
    answer = merge_rows(ASK, [part("a", 1), {"error": "there is no such ask"}], 1)
    assert (answer["rows"], answer["missing_workers"]) == (["a 1"], 2)


def test_endings_are_merged_newest_first():
    parts = [{"rows": [{"at": 5}, {"at": 1}]}, {"rows": [{"at": 3}]}]
    assert merge_endings({"limit": 2}, parts, 0)["rows"] == [{"at": 5}, {"at": 3}]


def summary(pid, count, *rooms):
    return {
        "worker": {"host": "h", "pid": pid, "connections": 2},
        "by_route": {"/": pid},
        "endings": {
            "minutes": [[7, {"peer_closed": 1}, {"1000": 1}]], "hours": [[7, {"peer_closed": 1}, {"1000": 1}]],
            "by_cause": {"peer_closed": 1}, "by_code": {"1000": 1},
        },
        "rooms": {"count": count, "largest": [list(each) for each in rooms]},
        "bus": {"name": "x", "kind": "redis", "connected": pid == 1},
        "totals": {"table": {"messages_in": pid}},
    }  # fmt: skip


def test_the_counts_of_summaries_are_added():
    answer = merge_summaries([summary(2, 1, ("a", 3)), summary(1, 5, ("a", 1), ("b", 2))], 1)
    assert [worker["pid"] for worker in answer["workers"]] == [1, 2]
    assert answer["connections"] == 4
    assert answer["by_route"] == {"/": 3}
    assert (
        answer["endings"]["minutes"] == answer["endings"]["hours"] == [[7, {"peer_closed": 2}, {"1000": 2}]]
    )
    assert answer["endings"]["by_code"] == {"1000": 2}
    assert answer["rooms"] == {"count": 5, "largest": [["a", 4], ["b", 2]]}
    assert answer["bus"] == {"kind": "redis", "connected": False}
    assert answer["totals"] == {"table": {"messages_in": 2}}, "both have read the same counts"
    assert answer["missing_workers"] == 1


def test_totals_do_not_go_back():
    totals = Totals()
    assert totals.update({"a": {"messages_in": 5, "bytes_in": 9}, "b": {"messages_in": 1}}) == {
        "messages_in": 6,
        "bytes_in": 9,
    }
    assert totals.update({"a": {"messages_in": 4, "bytes_in": 10}}) == {"messages_in": 6, "bytes_in": 10}
    for number in range(TABLES):
        known = totals.update({"a": {"messages_in": 7}, f"new {number}": {"messages_in": 1}})
        assert known["messages_in"] == 9 + number
    assert totals.update({"a": {"messages_in": 8}})["messages_in"] == 9 + TABLES


def test_totals_of_more_tables_than_are_kept_count_once():
    totals = Totals()
    heard = {f"table {number}": {"messages_in": 1} for number in range(TABLES + 10)}
    for _ in range(3):
        assert totals.update(heard) == {"messages_in": TABLES + 10}


def test_a_cursor_names_the_place_after_which_the_next_page_begins():
    order = Order.of({"sort": "key", "after": Order.of({}).cursor(("m", "w", 1))})
    assert [order.is_after((text, "w", 1)) for text in "lmn"] == [False, False, True]
    order = order._replace(descending=True)
    assert [order.is_after((text, "w", 1)) for text in "lmn"] == [True, False, False]
    with pytest.raises(AskError):
        Order.of({"sort": "queued", "after": '["m", "w", 1]'})
