"""Lines to messages and back, and arguments to options, without a process."""

from __future__ import annotations

import argparse
import ssl
from dataclasses import fields

import pytest
import trustme

import endwell
from endwell.cli.formats import Format
from endwell.cli.options import add_options, keywords_of


@pytest.mark.parametrize(
    ("form", "line", "message", "output"),
    [
        (Format(), b"gr\xc3\xbc\xc3\x9f", "grüß", "grüß\n"),
        (Format(binary=True), b"\xff\x00", b"\xff\x00", b"\xff\x00"),
        (Format(hexadecimal=True), b"0xFF 00", b"\xff\x00", "ff00\n"),
        (Format(in_json=True), b"a", "a", '{"text": "a"}\n'),
        (Format(binary=True, in_json=True), b"\xff", b"\xff", '{"binary": "ff"}\n'),
    ],
)
def test_lines_become_messages_and_messages_become_output(form, line, message, output):
    assert form.message(line) == message
    assert form.output(message) == output


def test_text_and_binary_output_are_distinguishable():
    assert Format().output(b"\xff") == "0xff\n"
    assert Format(binary=True).output("a") == "a\n"
    assert Format(hexadecimal=True).output("a") == "61\n"


@pytest.mark.parametrize(
    ("form", "line", "why"), [(Format(), b"\xff", "utf-8"), (Format(hexadecimal=True), b"0f0", "hexadecimal")]
)
def test_an_invalid_line_is_a_value_error(form, line, why):
    with pytest.raises(ValueError, match=why):
        form.message(line)


def keywords(*argv):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return keywords_of(parser.parse_args(argv))


def test_every_option_of_a_client_has_an_argument():
    parser = argparse.ArgumentParser()
    add_options(parser)
    names = {action.dest for action in parser._actions}
    servers = {
        "allowed_hosts",
        "body_timeout",
        "keep_alive_timeout",
        "legacy",
        "limits",
        "max_body",
        "max_connections",
        "max_connections_per_address",
        "origins",
        "proxy_headers",
        "proxy_protocol",
    }
    others = {"compression": "no_compression", "subprotocols": "subprotocol", "version": "protocol"}
    for option in fields(endwell.Options):
        assert (others.get(option.name, option.name) in names) is (option.name not in servers), option.name


def test_arguments_become_keywords_of_connect():
    argv = ["--max-size", "5", "--ping-interval", "none", "--open-timeout", "2.5", "--no-compression"]
    given = keywords(
        *argv, "--protocol", "hybi-07", "--unix", "/s", "--subprotocol", "chat", "--recorder", "r"
    )
    assert given == {
        "ssl": None,
        "additional_headers": [],
        "subprotocols": ["chat"],
        "unix_path": "/s",
        "version": "hybi-07",
        "max_size": 5,
        "ping_interval": None,
        "open_timeout": 2.5,
        "compression": None,
        "recorder": "r",
    }
    endwell.connect("ws://a/", **given)


@pytest.mark.parametrize("argv", [["--max-size", "many"], ["--max-size", "1.5"], ["--protocol", "14"]])
def test_an_argument_that_is_not_a_number_is_refused(argv, capsys):
    with pytest.raises(SystemExit):
        keywords(*argv)
    assert argv[0] in capsys.readouterr().err


def test_certificates_of_both_sides_make_a_context(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    mine = authority.issue_cert("client.example")
    mine.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}
    context = keywords("--cafile", paths["ca"], "--cert", paths["cert"], "--key", paths["key"])["ssl"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
    insecure = keywords("-k")["ssl"]
    assert (insecure.verify_mode, insecure.check_hostname) == (ssl.CERT_NONE, False)
