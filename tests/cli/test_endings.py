"""The log lines about endings: their text, and the number of writes."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import types

import pytest

from endwell import Cause, Close, Ending, Headers, Request
from endwell.cli.endings import MANY, EndingLog
from tests.pair import until

GOOD = Ending(
    cause=Cause.PEER_CLOSED, initiator=Cause.PEER_CLOSED.initiator, clean=True, received=Close(1000)
)
FAULT = Ending(cause=Cause.PEER_VANISHED, initiator=Cause.PEER_VANISHED.initiator, clean=False)
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO   |WARNING) 7 endwell\.serve: (.*)\n")


def connection(number=1):
    request = Request("GET", f"/a%20b/{number}?token=secret", Headers())
    return types.SimpleNamespace(remote_address=("::1", 50000, 0, 0), request=request)


class Counted(io.StringIO):
    """An output that counts its writes."""

    writes = 0

    def write(self, text):
        self.writes += 1
        return super().write(text)


def only_handler(monkeypatch):
    """The root logger's only handler, set up as in the command; called in a test, after pytest has added its own."""
    handler = logging.StreamHandler(Counted())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s 7 %(name)s: %(message)s"))
    monkeypatch.setattr(logging.root, "handlers", [handler])
    monkeypatch.setattr(logging.root, "level", logging.INFO)
    logging.root.manager._clear_cache()
    return handler


@pytest.fixture(autouse=True)
def levels():
    yield
    logging.root.manager._clear_cache()


async def test_many_endings_are_one_write_without_log_records(monkeypatch):
    handler = only_handler(monkeypatch)
    log = EndingLog(handler, "7 endwell.serve")
    monkeypatch.setattr(logging.Logger, "makeRecord", None)
    for number in range(MANY // 2):
        log.ended(connection(number), GOOD if number % 2 else FAULT)
    assert handler.stream.writes == 0
    await until(lambda: handler.stream.writes)
    lines = [LINE.fullmatch(line).groups() for line in handler.stream.getvalue().splitlines(keepends=True)]
    assert handler.stream.writes == 1
    assert lines == [
        ("INFO   ", f"[::1]:50000 on '/a b/{number}': {GOOD}")
        if number % 2
        else ("WARNING", f"[::1]:50000 on '/a b/{number}': {FAULT}")
        for number in range(MANY // 2)
    ]


async def test_a_flood_of_endings_does_not_accumulate(monkeypatch):
    handler = only_handler(monkeypatch)
    log = EndingLog(handler, "7 endwell.serve")
    for _ in range(3 * MANY):
        log.ended(connection(), GOOD)
    assert handler.stream.writes == 3
    await asyncio.sleep(0)
    log.flush()


async def test_a_line_has_the_format_of_the_logger(monkeypatch):
    """The logger writes it if the application has its own handlers."""
    handler = only_handler(monkeypatch)
    log = EndingLog(handler, "7 endwell.serve")
    log.ended(connection(), FAULT)
    log.flush()
    logging.root.addHandler(logging.NullHandler())
    log.ended(connection(), FAULT)
    log.flush()
    one, two = (LINE.fullmatch(line) for line in handler.stream.getvalue().splitlines(keepends=True))
    assert one.groups() == two.groups()


async def test_endings_below_the_log_level_format_no_line(monkeypatch):
    handler = only_handler(monkeypatch)
    logging.root.setLevel(logging.WARNING)
    log = EndingLog(handler, "7 endwell.serve")
    log.ended(connection(), GOOD)
    assert log._waiting == []
    log.ended(connection(), FAULT)
    assert len(log._waiting) == 1
    log.flush()
