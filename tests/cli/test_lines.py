"""The log lines about endings and requests: their text, and the number of writes."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import types

import pytest
from uvicorn.logging import AccessFormatter

from endwell import Cause, Close, Ending, Headers, Request
from endwell.aio.ending_log import is_enabled, log_ending, write_with
from endwell.cli.lines import MANY, AccessLog, EndingLog, Lines
from tests.pair import until

GOOD = Ending(
    cause=Cause.PEER_CLOSED, initiator=Cause.PEER_CLOSED.initiator, clean=True, received=Close(1000)
)
FAULT = Ending(cause=Cause.PEER_VANISHED, initiator=Cause.PEER_VANISHED.initiator, clean=False)
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO   |WARNING) 7 endwell\.endings: (.*)\n")


def connection(number=1):
    request = Request("GET", f"/a%20b/{number}?token=secret", Headers())
    return types.SimpleNamespace(
        remote_address=("::1", 50000, 0, 0),
        request=request,
        _core=types.SimpleNamespace(client=False),
        _subject=None,
        _key=None,
    )


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


@pytest.fixture(autouse=True)
def written_as_before():
    yield
    write_with(None)


def logged(monkeypatch, handler):
    """The lines, to which endings are logged now."""
    lines = Lines(handler, "7 ")
    write_with(EndingLog(lines).write)
    return lines


async def test_many_endings_are_one_write_without_log_records(monkeypatch):
    handler = only_handler(monkeypatch)
    lines = logged(monkeypatch, handler)
    monkeypatch.setattr(logging.Logger, "makeRecord", None)
    for number in range(MANY // 2):
        log_ending(connection(number), GOOD if number % 2 else FAULT)
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
    lines = logged(monkeypatch, handler)
    for _ in range(3 * MANY):
        log_ending(connection(), GOOD)
    assert handler.stream.writes == 3
    await asyncio.sleep(0)
    lines.flush()


async def test_a_line_has_the_format_of_the_logger(monkeypatch):
    """The logger writes it if the application has its own handlers."""
    handler = only_handler(monkeypatch)
    lines = logged(monkeypatch, handler)
    log_ending(connection(), FAULT)
    lines.flush()
    logging.root.addHandler(logging.NullHandler())
    log_ending(connection(), FAULT)
    lines.flush()
    one, two = (LINE.fullmatch(line) for line in handler.stream.getvalue().splitlines(keepends=True))
    assert one.groups() == two.groups()


async def test_endings_below_the_log_level_format_no_line(monkeypatch):
    handler = only_handler(monkeypatch)
    logging.root.setLevel(logging.WARNING)
    lines = logged(monkeypatch, handler)
    log_ending(connection(), GOOD)
    assert lines._waiting == []
    log_ending(connection(), FAULT)
    assert len(lines._waiting) == 1
    lines.flush()


async def test_with_another_handler_the_record_has_the_fields_of_the_ending(monkeypatch, caplog):
    handler = only_handler(monkeypatch)
    lines = logged(monkeypatch, handler)
    monkeypatch.setattr(logging.getLogger("endwell"), "handlers", [caplog.handler])
    log_ending(connection(), FAULT)
    assert lines._waiting == []
    (record,) = caplog.records
    assert record.ending == FAULT.as_dict()
    assert LINE.fullmatch(handler.stream.getvalue())


async def test_without_a_handler_of_its_own_each_line_is_a_record(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "endwell.endings")
    lines = logged(monkeypatch, None)
    log_ending(connection(), FAULT)
    assert lines._waiting == []
    (record,) = caplog.records
    assert record.ending == FAULT.as_dict()


def test_the_command_logs_abnormal_endings_also_at_the_level_warning(monkeypatch):
    assert not is_enabled()
    logged(monkeypatch, None)
    assert is_enabled()


def exchange(method, target, *fields, version="1.1", address=("127.0.0.1", 50000)):
    request = Request(method, target, Headers(fields), version, address)
    return types.SimpleNamespace(request=request)


UPGRADE = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


@pytest.mark.parametrize(
    ("answered", "status", "line"),
    [
        (exchange("GET", "/a%20b"), 200, '127.0.0.1:50000 - "GET /a%20b HTTP/1.1" 200'),
        (exchange("POST", '/a"b', version="1.0"), 404, '127.0.0.1:50000 - "POST /a%22b HTTP/1.0" 404'),
        (exchange("GET", "/?a=1&secret"), 200, '127.0.0.1:50000 - "GET /?a=...&... HTTP/1.1" 200'),
        (exchange("GET", "/", address=""), 200, 'a Unix socket - "GET / HTTP/1.1" 200'),
        (exchange("GET", "/ws", *UPGRADE), 101, '127.0.0.1:50000 - "WebSocket /ws" [accepted]'),
        (exchange("GET", "/ws", *UPGRADE), 403, '127.0.0.1:50000 - "WebSocket /ws" 403'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_answer_is_logged_in_the_format_of_uvicorn(answered, status, line, caplog):
    caplog.set_level(logging.INFO, "endwell")
    lines = Lines(logging.StreamHandler())
    AccessLog(lines).answered(answered, status)
    lines.flush()
    (record,) = caplog.records
    assert record.getMessage() == line
    assert record.name == ("endwell.serve" if "WebSocket" in line else "endwell.access")


async def test_a_formatter_of_uvicorn_formats_the_access_log(caplog):
    caplog.set_level(logging.INFO, "endwell")
    lines = Lines(logging.StreamHandler())
    AccessLog(lines).answered(exchange("GET", "/a"), 404)
    lines.flush()
    formatter = AccessFormatter("%(client_addr)s %(request_line)s %(status_code)s", use_colors=False)
    assert formatter.format(caplog.records[0]) == "127.0.0.1:50000 GET /a HTTP/1.1 404 Not Found"


async def test_a_request_that_cannot_be_parsed_has_no_line(caplog):
    caplog.set_level(logging.INFO, "endwell.access")
    lines = Lines(logging.StreamHandler())
    AccessLog(lines).answered(types.SimpleNamespace(request=None), 400)
    assert lines._waiting == []
