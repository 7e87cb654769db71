"""The environment variables of ``endwell serve``."""

import pytest

from endwell.cli import _parse, main


@pytest.fixture
def parse(monkeypatch):
    def parse(argv, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"ENDWELL_{name}", value)
        return _parse(argv)

    return parse


def test_each_argument_has_a_variable(parse):
    args = parse(
        ["-v", "serve", "app:app"],
        PORT="9000",
        HOST="::1",
        DRAIN_DEADLINE="5",
        LOG_LEVEL="WARNING",
        WS_MAX_SIZE="none",
        WS_PER_MESSAGE_DEFLATE="false",
        ORIGIN="https://a.example https://b.example",
        RELOAD="true",
        NO_ACCESS_LOG="0",
        FACTORY="no",
        PROXY_HEADERS="off",
        DRAIN_NO_LISTEN="1",
    )
    assert (args.port, args.host, args.drain_deadline, args.log_level) == (9000, "::1", 5.0, "warning")
    assert args.ws_max_size is None
    assert args.origin == ["https://a.example", "https://b.example"]
    assert (args.reload, args.no_access_log, args.factory, args.proxy_headers) == (True, False, False, False)
    assert (args.ws_per_message_deflate, args.drain_listen, args.verbose) == (False, False, 1)


def test_an_argument_replaces_its_variable(parse):
    args = parse(
        ["serve", "--port=1", "--origin", "c", "--uds", "a.sock", "--access-log", "app:app"],
        PORT="wrong",
        ORIGIN="a b",
        UNIX="b.sock",
        NO_ACCESS_LOG="true",
    )
    assert (args.port, args.origin, args.unix, args.no_access_log) == (1, ["c"], "a.sock", False)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("PORT", "tcp://10.0.0.1:80", "a port is a number between 0 and 65535, not 'tcp://10.0.0.1:80'"),
        ("LIFESPAN", "never", "invalid choice: 'never'"),
        ("DRAIN_DEADLINE", "x", "invalid float value: 'x'"),
        ("RELOAD", "perhaps", "must be true or false, not 'perhaps'"),
        ("PROXY_HEADERS", "perhaps", "must be true or false, not 'perhaps'"),
    ],
)
def test_the_error_of_a_wrong_value_names_the_variable(name, value, error, parse, capsys):
    with pytest.raises(SystemExit) as raised:
        parse(["serve", "app:app"], **{name: value})
    assert raised.value.code == 2
    assert f"error: the environment variable ENDWELL_{name}: {error}" in capsys.readouterr().err


def test_other_commands_and_uvicorns_variables_are_not_concerned(parse, monkeypatch, capsys):
    monkeypatch.setenv("UVICORN_PORT", "9000")
    assert parse(["serve", "app:app"], UDS="a.sock", HELP="1", LOOP="x").port is None
    monkeypatch.setenv("ENDWELL_PORT", "x")
    assert main(["why", "1000"]) == 0
