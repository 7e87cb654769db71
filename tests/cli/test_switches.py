"""The arguments of ``endwell serve`` become options of the server; uvicorn's words are understood."""

import argparse

import pytest

from endwell.cli import main, serve
from endwell.cli.switches import options_of


def parse(*argv):
    parser = argparse.ArgumentParser()
    serve.add(parser.add_subparsers())
    return parser.parse_args(["serve", "app:app", *argv])


def test_arguments_become_options():
    args = parse(
        *("--limit-concurrency", "7", "--timeout-keep-alive", "1.5", "--ws-max-size", "none"),
        *("--ws-ping-interval", "0", "--ws-per-message-deflate", "false", "--origin", "*"),
        *("--recorder", "endings"),
    )
    assert options_of(args, application=False) == {
        "max_connections": 7,
        "keep_alive_timeout": 1.5,
        "max_size": None,
        "ping_interval": None,
        "compression": None,
        "origins": ["*"],
        "recorder": "endings",
    }


@pytest.mark.parametrize(
    ("argv", "variable", "application", "trusted"),
    [
        ([], None, False, None),
        ([], None, True, ["127.0.0.1", "::1"]),
        (["--proxy-headers"], None, False, ["127.0.0.1", "::1"]),
        (["--no-proxy-headers"], "10.0.0.1", True, ()),
        ([], "10.0.0.1, unix", True, ["10.0.0.1", "unix"]),
        (["--forwarded-allow-ips", "10.0.0.0/8"], "10.0.0.1", False, ["10.0.0.0/8"]),
        (["--forwarded-allow-ips", "*"], None, True, ("0.0.0.0/0", "::/0", "unix")),
    ],
    ids=str,
)
def test_an_application_trusts_local_proxies_and_a_server_those_it_names(
    argv, variable, application, trusted, monkeypatch
):
    if variable is None:
        monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    else:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", variable)
    options = options_of(parse(*argv), application=application)
    assert options.get("proxy_headers") == trusted


def test_words_of_uvicorn_are_the_same_arguments():
    theirs = parse(
        *(
            "--uds",
            "a.sock",
            "--ssl-certfile",
            "a.pem",
            "--ssl-keyfile",
            "b.pem",
            "--ssl-keyfile-password",
            "x",
        ),
        *("--ssl-ca-certs", "c.pem", "--ssl-cert-reqs", "2", "--ssl-ciphers", "ALL"),
        *("--timeout-graceful-shutdown", "5"),
    )
    ours = parse(
        *("--unix", "a.sock", "--certfile", "a.pem", "--keyfile", "b.pem", "--keyfile-password", "x"),
        *("--cafile", "c.pem", "--cert-reqs", "2", "--ciphers", "ALL", "--drain-deadline", "5"),
    )
    assert theirs == ours


@pytest.mark.parametrize(
    "argv", [["--http2"], ["--loop", "uvloop"], ["--access-log-format", "%(h)s"]], ids=str
)
def test_an_argument_of_uvicorn_without_an_equivalent_says_why(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["serve", "app:app", *argv])
    assert caught.value.code == 2
    assert f"{argv[0]} is an argument of uvicorn only: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "variable", "workers"),
    [
        ([], "3", 3),
        ([], "1", None),
        ([], "", None),
        (["--workers", "1"], "3", 1),
        (["--limit-max-requests", "9"], "", 1),
        (["--limit-max-requests", "9"], "3", 3),
    ],
)
def test_the_number_of_workers_comes_from_the_argument_or_the_environment(
    argv, variable, workers, monkeypatch
):
    monkeypatch.setenv("WEB_CONCURRENCY", variable)
    assert serve._workers(parse(*argv)) == workers


def test_a_variable_that_is_no_number_of_workers_is_named(monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    with pytest.raises(ValueError, match="WEB_CONCURRENCY must be a positive number, not 'many'"):
        serve._workers(parse())
