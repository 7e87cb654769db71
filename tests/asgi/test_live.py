"""The server process for live-server tests."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from endwell.testing import LiveServerProcess
from tests.cli.process import PATIENCE, finish, python


def test_the_live_server_tests_of_channels_run_on_it(tmp_path):
    pytest.importorskip("channels")
    with python(str(Path(__file__).with_name("live_site.py")), str(tmp_path)) as process:
        status, out, err = finish(process)
    assert status == 0, err
    assert out == "ended with 1001\n"
    assert (tmp_path / "disconnected").read_text() == "1001"


def get_application():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})

    return app


def test_it_tells_its_port_and_ends_when_it_is_terminated():
    process = LiveServerProcess("localhost", get_application, {"max_head": 1000})
    process.start()
    try:
        assert process.ready.wait(PATIENCE)
        connection = http.client.HTTPConnection("localhost", process.port.value, timeout=PATIENCE)
        for fields, status in (({}, 200), ({"X": "x" * 1000}, 431)):
            connection.request("GET", "/", headers=fields)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
        connection.close()
    finally:
        process.terminate()
        process.join(PATIENCE)
    assert process.exitcode == 0


def fail():
    raise ValueError("no application")


def test_an_error_is_reported(capfd):
    process = LiveServerProcess("localhost", fail)
    process.start()
    error, text = process.errors.get(timeout=PATIENCE)
    process.join(PATIENCE)
    assert isinstance(error, ValueError)
    assert "no application" in text
    assert not process.ready.is_set()
    assert "ValueError: no application" in capfd.readouterr().err
