"""Where the endings that have a record go: a function or files. No failure there ends a connection."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import subprocess
import sys

import pytest

from endwell import Cause, Ending, HandshakeError, Server
from endwell.aio import recording
from endwell.protocol.replay import replay
from tests.pair import until, within
from tests.raw import HOST, RawPeer

FAULT = {"cause": "peer_vanished", "initiator": "network", "clean": False, "record": {"format": 1}}


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_directories", {})
    return tmp_path / "records"


def written(directory):
    """The contents of the files, the oldest first."""
    recording._directories[str(directory)].wait(30)
    return [json.loads(path.read_text()) for path in sorted(directory.iterdir())]


def put(directory, count=1):
    """Deliver endings, which can be told apart by their number of messages."""
    for number in range(count):
        recording.deliver(Ending.from_dict({**FAULT, "messages_in": number}), str(directory))


async def vanish(server, transport):
    """A peer that ends TCP without a Close."""
    with await RawPeer.connect(server.port, transport.client) as peer:
        peer.fin()
        await peer.read_to_the_end()


async def test_a_server_writes_each_abnormal_ending_to_a_file(face, transport, directory):
    async def reading(ws):
        async for _ in ws:
            pass

    server = Server(recorder=directory)
    server.websocket("/")(face.handler(reading))
    endings = []
    server.on_close(lambda ws, ending: endings.append(ending))
    async with server.serving(ssl=transport.server):
        await vanish(server, transport)
        scheme = "ws" if transport.server is None else "wss"
        ws = await face.connect(f"{scheme}://{HOST}:{server.port}/", ssl=transport.client)
        await within(ws.close())  # a normal ending
        await until(lambda: len(endings) == 2)
    (values,) = written(directory)
    assert Ending.from_dict(values).cause is Cause.PEER_VANISHED
    assert replay(values).differences() == {}
    (file,) = directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_function_is_called_with_each_abnormal_ending(face, transport):
    recorded = []

    async def reading(ws):
        async for _ in ws:
            pass

    server = Server()
    server.websocket("/", recorder=recorded.append)(face.handler(reading))
    async with server.serving(ssl=transport.server):
        await vanish(server, transport)
        await until(lambda: recorded)
    (ending,) = recorded
    assert replay(ending.as_dict()).differences() == {}


async def test_a_failed_connect_is_recorded(face, directory):
    with pytest.raises(HandshakeError) as caught:
        await face.connect(f"ws://{HOST}:1/", recorder=directory)
    (values,) = written(directory)
    assert values == json.loads(json.dumps(caught.value.ending.as_dict()))
    assert replay(values).differences() == {}


async def test_a_function_that_fails_is_logged_and_the_connection_ends_as_before(face, transport, caplog):
    def fail(ending):
        raise RuntimeError("no")

    async def reading(ws):
        async for _ in ws:
            pass

    server = Server(recorder=fail)
    server.websocket("/")(face.handler(reading))
    endings = []
    server.on_close(lambda ws, ending: endings.append(ending))
    async with server.serving(ssl=transport.server):
        await vanish(server, transport)
        await until(lambda: endings)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith("the recorder ")
    assert str(record.exc_info[1]) == "no"


def test_the_newest_files_are_kept(directory, monkeypatch):
    monkeypatch.setattr(recording, "MAX_FILES", 100)
    monkeypatch.setattr(recording, "BATCH", 8)
    put(directory, 250)
    assert [values["messages_in"] for values in written(directory)] == list(range(150, 250))


def test_the_bytes_of_all_files_are_limited(directory, monkeypatch):
    size = len(json.dumps(Ending.from_dict(FAULT).as_dict()))
    monkeypatch.setattr(recording, "MAX_BYTES", 20 * size)
    monkeypatch.setattr(recording, "BATCH", 4)
    put(directory, 100)
    values = written(directory)
    assert 12 <= len(values) <= 20
    assert values[-1]["messages_in"] == 99


def test_other_files_stay_and_a_file_of_a_killed_process_is_deleted(directory, monkeypatch):
    monkeypatch.setattr(recording, "MAX_FILES", 2)
    directory.mkdir()
    (directory / "mine.json").write_text("{}")
    for name, age in ((".ending-new", 0), (".ending-old", 2 * recording.STALE)):
        (directory / name).write_text("{")
        os.utime(directory / name, (os.stat(directory).st_mtime - age,) * 2)
    for _ in range(4):
        put(directory)
        recording._directories[str(directory)].wait(30)
    names = sorted(path.name for path in directory.iterdir())
    assert names[0] == ".ending-new"
    assert names[-1] == "mine.json"
    assert len(names) == 4


def test_a_full_disk_is_logged_once_until_there_is_room_again(directory, monkeypatch, caplog):
    real, full = os.open, [True]

    def fails(*args, **options):
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **options)

    monkeypatch.setattr(recording.os, "open", fails)
    for _ in range(5):
        put(directory)
        recording._directories[str(directory)].wait(30)
    assert [record.getMessage() for record in caplog.records] == [
        f"endings cannot be written to {str(directory)!r}: [Errno 28] No space left on device"
    ]
    full[0] = False
    put(directory)
    assert len(written(directory)) == 1
    full[0] = True
    put(directory)
    recording._directories[str(directory)].wait(30)
    assert len(caplog.records) == 2


def test_a_path_that_is_a_file_is_logged(directory, caplog):
    directory.write_text("")
    put(directory, 3)
    recording._directories[str(directory)].wait(30)
    assert len(caplog.records) == 1


class _Textless(Exception):
    def __init__(self, raises):
        self.raises = raises

    def __str__(self):
        raise self.raises


@pytest.mark.parametrize("raises", [RuntimeError, SystemExit])
def test_an_exception_without_a_text_costs_only_its_own_file(raises, directory, caplog):
    """It must not stop the thread, either: nothing would be written any more."""
    put(directory)
    ending = Ending.from_dict(FAULT)
    object.__setattr__(ending, "exception", _Textless(raises))
    recording.deliver(ending, str(directory))
    put(directory)
    assert len(written(directory)) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"writing an ending to {str(directory)!r} failed"
    ]


def test_what_cannot_be_deleted_does_not_stop_the_writing(directory, monkeypatch, caplog):
    monkeypatch.setattr(recording, "MAX_FILES", 2)
    (directory / "ending-0.json").mkdir(parents=True)
    put(directory, 2)
    recording._directories[str(directory)].wait(30)
    (directory / "ending-0.json").rmdir()
    assert len(written(directory)) == 2
    assert caplog.records == []


def test_while_the_disk_is_slow_a_limited_number_of_endings_waits(directory, monkeypatch, caplog):
    monkeypatch.setattr(recording, "MAX_WAITING", 10)
    monkeypatch.setattr(recording._thread, "start_new_thread", lambda *_: None)
    put(directory, 30)
    assert len(recording._directories[str(directory)]._waiting) == 10
    assert [record.getMessage() for record in caplog.records] == [
        f"endings cannot be written to {str(directory)!r}: 10 of them wait to be written"
    ]


def test_without_threads_nothing_is_written_and_nothing_fails(directory, monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(recording._thread, "start_new_thread", fails)
    put(directory, 2)
    assert "can't start new thread" in caplog.text


PROGRAM = """
import sys
from endwell import Ending
from endwell.aio.recording import deliver

fault = {"cause": "peer_vanished", "initiator": "network", "clean": False, "record": {"format": 1}}
ending = Ending.from_dict(fault)
for _ in range(100):
    deliver(ending, sys.argv[1])
"""


def test_what_waits_is_written_before_the_process_exits(directory):
    subprocess.run([sys.executable, "-c", PROGRAM, directory], check=True, timeout=60)
    assert len(list(directory.iterdir())) == 100
