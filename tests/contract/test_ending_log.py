"""The logger ``endwell.endings``: one record for each connection that was open, with all fields of its Ending."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

import endwell
from endwell import Close, Ending, Server
from endwell.cli.recorded import read
from endwell.logs import JsonFormatter
from tests.pair import pair, until, within

NAME = "endwell.endings"


@pytest.fixture
def records(caplog):
    """The records of the logger, which is enabled for INFO."""
    caplog.set_level(logging.INFO, NAME)
    return lambda: [record for record in caplog.records if record.name == NAME]


async def test_an_ordinary_ending_is_one_record_with_every_field(role, transport, face, records):
    async with pair(role, transport, face) as both:
        await both.peer.close(1000, "bye")
        await both.peer.read_to_the_end()
        both.peer.drop()
        ending = await both.ending()
    (record,) = records()
    assert record.levelno == logging.INFO
    assert record.ending == ending.as_dict()
    assert Ending.from_dict(record.ending) == ending
    address = endwell.aio.bind.format_peer(both.ws.remote_address)
    assert (record.role, record.address, record.path) == (role, address, "/")
    assert (record.route, record.subject, record.key) == ("/" if role == "server" else None, None, None)
    assert record.getMessage() == f"{address} on '/': {ending}"


async def test_an_abnormal_ending_is_a_warning(role, face, records):
    async with pair(role, face=face) as both:
        both.peer.fin()
        await both.ending()
    (record,) = records()
    assert record.levelno == logging.WARNING
    assert record.ending["cause"] == "peer_vanished"


async def test_without_a_configuration_nothing_is_logged(role, caplog):
    # Python shows the warnings of a program that configures no logging.
    assert logging.root.level == logging.WARNING
    async with pair(role) as both:
        both.peer.fin()
        await both.ending()
    assert caplog.records == []


async def test_a_level_of_the_logger_itself_chooses_what_is_logged(caplog):
    caplog.set_level(logging.WARNING, NAME)
    async with pair("server") as both:
        await both.peer.close(1000)
        await both.peer.read_to_the_end()
    async with pair("server") as both:
        both.peer.reset()
        await both.ending()
    assert [record.ending["cause"] for record in caplog.records] == ["connection_reset"]


@pytest.mark.parametrize("level", [logging.ERROR, logging.WARNING])
async def test_an_ending_that_is_not_logged_is_not_formatted(level, caplog, monkeypatch):
    def formatted(ending):
        raise AssertionError

    monkeypatch.setattr(Ending, "as_dict", formatted)
    caplog.set_level(level, NAME)
    async with pair("server") as both:
        await both.peer.close(1000)
        await both.peer.read_to_the_end()
        both.peer.drop()
        assert (await both.ending()).ok
    assert caplog.records == []


async def test_the_record_names_the_route_the_subject_and_the_key_but_no_token(face, records):
    server = Server(origins=["*"])

    async def accept(request):
        return endwell.Accept(subject="ada")

    @server.websocket("/rooms/{room}", accept=accept)
    async def handler(ws, room):
        server.sessions.join("user 7", ws)

    async with server.serving():
        uri = f"ws://127.0.0.1:{server.port}/rooms/a%20b?token=secret"
        async with endwell.connect(uri, token="secret") as ws:
            await within(ws.closed)
        await until(lambda: len(records()) == 2)
    (record,) = (each for each in records() if each.role == "server")
    assert (record.route, record.path) == ("/rooms/{room}", "/rooms/a b")
    assert (record.subject, record.key) == ("ada", "user 7")
    for record in records():
        assert "secret" not in JsonFormatter().format(record)


async def test_the_record_comes_before_the_on_close_callbacks(records):
    seen = []
    async with pair("client") as both:
        both.ws.on_close(lambda ending: seen.append(len(records())))
        await both.peer.close(1000)
        await both.peer.read_to_the_end()
        both.peer.drop()
        await both.ending()
    assert seen == [1]


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
async def test_a_handler_of_logging_that_fails_does_not_hide_the_ending(error, face, caplog):
    def fails(record):
        raise error("for the test")

    logger = logging.getLogger(NAME)
    caplog.set_level(logging.INFO, NAME)
    logger.addFilter(fails)
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    try:
        async with pair("server", face=face) as both:
            await both.peer.close(1000)
            await both.peer.read_to_the_end()
            both.peer.drop()
            assert (await both.ending()).ok
    finally:
        logger.removeFilter(fails)
    assert [context["message"] for context in told] == ["logging an ending failed"]


async def test_attributes_of_the_programs_own_records_do_not_hide_the_record(role, records):
    # logging refuses `extra` with the name of an attribute that the record has.
    original = logging.getLogRecordFactory()

    def make(*args, **kwargs):
        record = original(*args, **kwargs)
        record.path = record.subject = record.ending = record.of_the_program = "of the program"
        return record

    logging.setLogRecordFactory(make)
    try:
        async with pair(role) as both:
            both.peer.fin()
            ending = await both.ending()
    finally:
        logging.setLogRecordFactory(original)
    (record,) = records()
    assert (record.ending, record.path, record.subject) == (ending.as_dict(), "/", None)
    assert record.of_the_program == "of the program"


async def test_a_connection_that_was_never_open_has_no_record(records):
    server = Server()
    async with server.serving():
        with pytest.raises(endwell.HandshakeRejected):
            await endwell.connect(f"ws://127.0.0.1:{server.port}/nowhere")
    assert records() == []


async def test_a_record_as_json_is_one_line_that_has_the_ending(records):
    async with pair("server") as both:
        await both.peer.close(4000, "a\r\nb\N{LINE SEPARATOR}\x1b[31m")
        await both.peer.read_to_the_end()
        both.peer.drop()
        ending = await both.ending()
    line = JsonFormatter().format(*records())
    assert line.isascii()
    assert line.isprintable()
    row = json.loads(line)
    assert Ending.from_dict(row["ending"]) == ending
    assert ending.received == Close(4000, "a\r\nb\N{LINE SEPARATOR}\x1b[31m")
    assert (row["level"], row["logger"], row["role"]) == ("WARNING", NAME, "server")


async def test_endwell_why_reads_a_record_as_json_and_as_text(role, records):
    async with pair(role) as both:
        await both.peer.close(1001, "it's \x1b[31m")
        await both.peer.read_to_the_end()
        both.peer.drop()
        ending = await both.ending()
    (record,) = records()
    found = read(JsonFormatter().format(record))
    assert (found.ending, found.role) == (ending, role)
    found = read(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s").format(record))
    assert found.ending.received == ending.received


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR])
async def test_the_sentence_is_in_one_line_also_with_reconnecting(level, caplog):
    caplog.set_level(level, NAME)
    caplog.set_level(logging.INFO, "endwell.client")
    server = Server()

    @server.websocket("/")
    async def handler(ws):
        await ws.close(1000, "bye")

    async with server.serving():
        async for ws in endwell.reconnecting(f"ws://127.0.0.1:{server.port}/"):
            await within(ws.closed)
    said = [each.name for each in caplog.records if "peer closed with 1000" in each.getMessage()]
    assert said == [NAME if level == logging.INFO else "endwell.client"]
