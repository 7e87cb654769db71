"""The environment, the logging and the TLS of ``endwell serve``."""

import argparse
import json
import logging
import logging.config
import os
import ssl
import sys

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from endwell.cli import serve
from endwell.cli.settings import configure_logging, load_environment, server_context
from endwell.logs import JsonFormatter


def parse(*argv):
    parser = argparse.ArgumentParser()
    serve.add(parser.add_subparsers())
    parser.add_argument("-v", dest="verbose")
    return parser.parse_args(["serve", "app:app", *argv])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a certificate, its private key with the password "secret", and the authority."""
    path = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(path / "server.pem")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    encrypted = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (path / "key.pem").write_bytes(encrypted)
    return path


@pytest.mark.parametrize(
    ("argv", "mode"),
    [
        ([], ssl.CERT_NONE),
        (["--cafile", "ca.pem"], ssl.CERT_REQUIRED),
        (["--cafile", "ca.pem", "--cert-reqs", "1"], ssl.CERT_OPTIONAL),
        (
            ["--keyfile", "key.pem", "--keyfile-password", "secret", "--ciphers", "ECDHE+AESGCM"],
            ssl.CERT_NONE,
        ),
    ],
    ids=str,
)
def test_a_context_is_made_from_the_arguments(folder, argv, mode, monkeypatch):
    monkeypatch.chdir(folder)
    context = server_context(parse("--certfile", "server.pem", *argv))
    assert context.verify_mode is mode


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--keyfile", "key.pem"], "the private key is encrypted: add --keyfile-password"),
        (["--keyfile", "key.pem", "--keyfile-password", "wrong"], "cannot use 'server.pem' and 'key.pem': "),
        (["--keyfile", "missing.pem"], "there is no file 'missing.pem'"),
        (["--cafile", "missing.pem"], "there is no file 'missing.pem'"),
        (["--certfile", "ca.pem"], "cannot use 'ca.pem': .*, and the same file its private key"),
        (["--certfile", "junk.pem"], "cannot use 'junk.pem': .*, and the same file its private key"),
        (
            ["--keyfile", "junk.pem"],
            "cannot use 'server.pem' and 'junk.pem': .*, and the other its private key",
        ),
        (["--cafile", "key.pem"], "cannot use 'key.pem': "),
        (["--cert-reqs", "2"], "--cert-reqs needs --cafile"),
        (["--ciphers", "nonsense"], "cannot use 'nonsense': "),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_named(folder, argv, problem, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "junk.pem").write_text("junk")
    with pytest.raises(ValueError, match=f"^{problem}"):
        server_context(parse("--certfile", "server.pem", *argv))


@pytest.fixture
def log_file(tmp_path, monkeypatch):
    """Write a logging configuration, whose effect ends with the test."""
    for logger in (logging.root, logging.getLogger("endwell")):
        monkeypatch.setattr(logger, "handlers", list(logger.handlers))
        monkeypatch.setattr(logger, "level", logger.level)

    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    yield write
    logging.root.manager._clear_cache()


INI = """[loggers]
keys=root,endwell
[handlers]
keys=
[formatters]
keys=
[logger_root]
handlers=
[logger_endwell]
qualname=endwell
level=ERROR
handlers=
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.json", json.dumps({"version": 1, "loggers": {"endwell": {"level": "ERROR"}}})),
        ("log.yaml", "version: 1\nloggers: {endwell: {level: ERROR}}"),
        ("log.toml", 'version = 1\nloggers.endwell.level = "ERROR"'),
        ("log.ini", INI),
    ],
)
def test_a_configuration_of_logging_is_used(name, text, log_file):
    args = parse("--log-config", log_file(name, text))
    logger = logging.getLogger("endwell")
    configure_logging(args, logging.NullHandler(), "")
    assert logger.level == logging.ERROR
    args.log_level = "debug"
    configure_logging(args, logging.NullHandler(), "")
    assert logger.level == logging.DEBUG
    assert not logging.getLogger("endwell.server").disabled
    assert not logging.getLogger("asyncio").disabled


HANDLER = INI.replace("[handlers]\nkeys=", "[handlers]\nkeys=out") + "[handler_out]\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.json", "{"),
        ("log.json", "{}"),
        ("log.json", "[1]"),
        ("log.json", "\xff"),
        ("log.yaml", "- x"),
        ("log.yaml", "{"),
        ("log.toml", "x"),
        ("log.toml", "version = 2"),
        ("log.ini", "x"),
        ("log.ini", HANDLER),
        ("log.ini", f"{HANDLER}class=nowhere.Handler"),
        ("log.ini", f"{HANDLER}class=StreamHandler\nargs=("),
    ],
)
def test_a_configuration_of_logging_that_is_wrong_is_named(name, text, log_file):
    args = parse("--log-config", path := log_file(name, text))
    with pytest.raises(ValueError, match=f"^cannot use {path!r} as --log-config: ") as raised:
        configure_logging(args, logging.NullHandler(), "")
    assert "\n" not in str(raised.value)


def test_json_is_the_format_of_the_handler(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    handler = logging.StreamHandler()
    configure_logging(parse("--log-format", "json"), handler, "")
    assert isinstance(handler.formatter, JsonFormatter)
    assert logging.root.level == logging.INFO
    logging.root.manager._clear_cache()


def test_an_environment_file_does_not_replace_variables(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "ENDWELL_ONE": "kept"})
    file = tmp_path / "app.env"
    file.write_text("ENDWELL_ONE=replaced\nENDWELL_TWO='a b'\n")
    load_environment(str(file))
    assert (os.environ["ENDWELL_ONE"], os.environ["ENDWELL_TWO"]) == ("kept", "a b")


def test_a_missing_dotenv_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dotenv", None)
    (tmp_path / "app.env").write_text("")
    with pytest.raises(ValueError, match="needs the package python-dotenv: pip install python-dotenv"):
        load_environment(str(tmp_path / "app.env"))


def test_a_missing_yaml_is_named(log_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    args = parse("--log-config", log_file("log.yaml", ""))
    with pytest.raises(ValueError, match="needs the package PyYAML: pip install pyyaml"):
        configure_logging(args, logging.NullHandler(), "")
