"""Options are validated when they are created, and are immutable."""

import dataclasses
import math
import os
import pathlib
import re
import sys
import typing

import pytest

from endwell.options import LEGACY, Deflate, OptionKeywords, Options, check_keywords, option_table

NUMBERS = {field.name: field for field in dataclasses.fields(Options) if field.metadata["unit"]}
SECONDS = [name for name, field in NUMBERS.items() if field.metadata["unit"] == "s"]
COUNTS = [name for name in NUMBERS if name not in SECONDS]
# The options for which None would mean unbounded or nothing.
NEVER_NONE = {
    "close_timeout",
    "answer_timeout",
    "linger_timeout",
    "max_queue",
    "write_limit",
    "max_line",
    "max_headers",
    "max_head",
    "max_refusal",
}
MAY_BE_ZERO = {"answer_timeout", "write_limit", "max_refusal"}


def test_the_defaults_are_the_documented_ones():
    options = Options()
    assert (options.open_timeout, options.close_timeout) == (10, 10)
    assert (options.answer_timeout, options.linger_timeout) == (1, 1)
    assert (options.ping_interval, options.ping_timeout) == (20, 20)
    assert options.write_timeout == 30
    assert (options.idle_timeout, options.stale_after, options.max_lifetime) == (None, None, None)
    assert (options.max_size, options.max_queue, options.write_limit) == (2**20, 16, 2**16)
    assert (options.max_line, options.max_headers, options.max_head) == (8192, 128, 32768)
    assert options.max_refusal == 65536
    assert options.compression == Deflate()
    assert (options.subprotocols, options.origins) == ((), None)


@pytest.mark.parametrize("name", SECONDS)
def test_a_time_may_be_any_positive_number(name):
    assert getattr(Options(**{name: 0.25}), name) == 0.25
    assert getattr(Options(**{name: 3}), name) == 3


@pytest.mark.parametrize("name", COUNTS)
def test_a_size_must_be_an_integer(name):
    assert getattr(Options(**{name: 3}), name) == 3
    with pytest.raises(TypeError, match=rf"{name} must be a number of \w+, not 1\.5"):
        Options(**{name: 1.5})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["10", True, [1]])
def test_a_value_that_is_no_number_is_refused_by_option_name(name, value):
    with pytest.raises(TypeError, match=f"{name} must be a number of"):
        Options(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_a_negative_number_is_refused_by_option_name(name):
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, not -1"):
        Options(**{name: -1})


@pytest.mark.parametrize("name", COUNTS)
def test_a_size_is_at_most_sys_maxsize(name):
    assert getattr(Options(**{name: sys.maxsize}), name) == sys.maxsize
    with pytest.raises(ValueError, match=rf"{name} must be at most sys\.maxsize"):
        Options(**{name: sys.maxsize + 1})


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_an_infinite_time_is_refused_by_option_name(name, value):
    with pytest.raises(ValueError, match=f"{name} must be positive and finite"):
        Options(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_zero_is_refused_except_for_three_options(name):
    if name in MAY_BE_ZERO:
        assert getattr(Options(**{name: 0}), name) == 0
    else:
        with pytest.raises(ValueError, match=name):
            Options(**{name: 0})


@pytest.mark.parametrize("name", NUMBERS)
def test_none_disables_the_options_that_may_be_disabled(name):
    if name in NEVER_NONE:
        with pytest.raises(ValueError, match=f"{name} must not be None"):
            Options(**{name: None})
    else:
        assert getattr(Options(**{name: None}), name) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "*.",
        "http://example.com",
        "example.com:80",
        "a b",
        "a/b",
        "::1",
        "[::1]:80",
        "b\xfccher.example",
        "[12345]",
        "[1.2.3.4]",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10/8",
        "example.com/8",
    ],
)
def test_an_allowed_host_must_be_a_name_or_a_network(host):
    with pytest.raises(
        ValueError, match=r'allowed_hosts must be names without scheme and port.* "10\.0\.0\.0/8"'
    ):
        Options(allowed_hosts=["example.com", host])


@pytest.mark.parametrize(
    ("proxy", "why"),
    [
        ("10.0.0.1/8", "10.0.0.1/8 has host bits set"),
        ("proxy.example", "'proxy.example' does not appear to be"),
        ("*", "'\\*' does not appear to be"),
    ],
)
def test_a_proxy_must_be_an_address_or_a_network_and_the_error_says_why_it_is_not(proxy, why):
    with pytest.raises(ValueError, match=f'^proxy_headers must be addresses or networks.* "unix"; {why}'):
        Options(proxy_headers=["10.0.0.0/8", "::1", "unix", proxy])


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "example.com",
        "*.example.com",
        "//example.com",
        "https://",
        "https://example.com/",
        "https://example.com/chat",
        "https://example.com?",
        " https://example.com",
        "https://example.com ",
        "https://a.example https://b.example",
        "https://a.example,https://b.example",
        "https://user@example.com",
        "https://example.com:",
        "https://example.com:x",
        "https://example.com:65536",
        "http://localhost:*",
        "https://*",
        "https://*example.com",
        "https://a.*.example.com",
        "https://*.*.example.com",
        "*://example.com",
        "https://b\xfccher.example",
        "https://example.com\n",
        "Null ",
        "https://a..example.com",
        "https://.example.com",
        "https://*.[::1]",
        "https://[0:0:0:0:0:0:0:1]",
        "https://[::::]",
        "https://example.com:0443",
        "https://example.com:0",
    ],
)
def test_an_origin_that_can_never_match_is_refused_with_examples(origin):
    with pytest.raises(
        ValueError, match=r'^origins must be .* such as "https://example\.com", .*; not '
    ) as raised:
        Options(origins=["https://b.example", origin])
    assert str(raised.value).endswith(f"; not {origin!r}")


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "HTTPS://Example.com:443",
        "http://localhost:8080",
        "http://[::1]:8080",
        "https://*.example.com",
        "https://*.example.com:8443",
        "wss://example.com",
        "chrome-extension://abc",
        "capacitor://localhost",
        "file://",
        "null",
        "*",
        re.compile("https://.*"),
    ],
)
def test_an_origin_may_be_exact_or_a_pattern(origin):
    assert Options(origins=[origin]).origins == (origin,)


@pytest.mark.parametrize("again", ["HTTP://A.example", "http://a.example:80", "ws://a.example"])
def test_two_spellings_of_one_origin_are_refused(again):
    with pytest.raises(ValueError, match=f"origins must be without repeats, but contains '{again}' twice"):
        Options(origins=["http://a.example", again])


def test_origins_may_be_a_function_but_not_a_coroutine_function():
    assert Options(origins=str.isascii).origins is str.isascii

    async def accept_all(origin):
        return False

    class AcceptAll:
        __call__ = staticmethod(accept_all)

    for wrong in (accept_all, AcceptAll()):
        with pytest.raises(TypeError, match="origins must be a plain function"):
            Options(origins=wrong)


@pytest.mark.parametrize("wrong", [re.compile("a"), [re.compile(b"a")], [None]])
def test_an_origin_pattern_must_be_a_text_pattern_in_a_sequence(wrong):
    with pytest.raises(TypeError, match="origins must "):
        Options(origins=wrong)


@pytest.mark.parametrize("name", ["", "a b", "a,b", "\xe9", '"a"', "a/b", " a"])
def test_a_subprotocol_must_be_a_token(name):
    with pytest.raises(ValueError, match=r'subprotocols must be tokens without repeats, such as \["chat", '):
        Options(subprotocols=["chat", name])


@pytest.mark.parametrize("name", ["subprotocols", "origins", "allowed_hosts", "legacy"])
def test_a_string_is_refused_where_a_sequence_is_expected(name):
    given = ["http://hixie-76" if name == "origins" else "hixie-76"]
    options = Options(**{name: given})
    given.append("a b")
    assert getattr(options, name) == (given[0],)
    with pytest.raises(TypeError, match=f"{name} must be a sequence of strings, not one string"):
        Options(**{name: "hixie-76"})
    nothing = [] if name in ("origins", "allowed_hosts") else [None]
    for wrong in (5, iter(["hixie-76"]), b"hixie-76", *nothing):
        with pytest.raises(TypeError, match=f"{name} must be a sequence of strings, not "):
            Options(**{name: wrong})
    for wrong in (5, None, b"hixie-76", ["hixie-76"]):
        with pytest.raises(TypeError, match=f"{name} must be a sequence of strings, but contains "):
            Options(**{name: [wrong]})
    with pytest.raises(ValueError, match=f"{name} must be without repeats"):
        Options(**{name: [given[0], given[0]]})


def test_old_protocols_are_off_and_enabled_by_name():
    assert (Options().version, Options().legacy) == ("13", ())
    assert Options(legacy=True).spoken == LEGACY
    assert Options(legacy=False).spoken == ()
    assert Options(legacy=["hixie-76"]).spoken == ("hixie-76",)
    assert Options(version="hixie-75").replace(max_size=1).version == "hixie-75"
    assert Options(legacy=True).replace(max_size=1).spoken == LEGACY


@pytest.mark.parametrize("version", ["14", "hixie-77", "", 13, None])
def test_an_unknown_version_is_refused_by_option_name(version):
    with pytest.raises(ValueError, match=r"version must be one of '13', 'hybi-08', .*, 'hixie-75', not "):
        Options(version=version)
    if isinstance(version, str):
        with pytest.raises(
            ValueError, match=r"legacy must be True or some of 'hybi-08', .*, 'hixie-75', not "
        ):
            Options(legacy=["hixie-76", version])


def test_version_13_is_not_a_legacy_protocol():
    with pytest.raises(ValueError, match="legacy must be True or some of"):
        Options(legacy=["13"])


def test_compression_must_be_deflate_or_none():
    assert Options(compression=None).compression is None
    with pytest.raises(TypeError, match="compression must be a Deflate or None, not True"):
        Options(compression=True)


def test_options_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().max_size = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Deflate().level = 1


def test_replace_changes_and_validates_a_copy():
    options = Options(max_size=5)
    copy = options.replace(max_queue=2)
    assert (copy.max_size, copy.max_queue) == (5, 2)
    assert options.max_queue == 16
    assert options.replace() is options
    with pytest.raises(ValueError, match="max_queue"):
        options.replace(max_queue=0)


def test_an_unknown_option_is_named_in_the_error():
    with pytest.raises(TypeError, match="ping_intervall"):
        Options().replace(ping_intervall=5)


def test_proxy_protocol_must_be_a_bool():
    assert Options(proxy_protocol=True).proxy_protocol
    with pytest.raises(TypeError, match="proxy_protocol must be True or False, not 1"):
        Options(proxy_protocol=1)


@pytest.mark.parametrize(
    ("keyword", "hint"),
    [
        ("colour", "; did you mean 'color'?"),
        ("max_queue", "; it is an option of the whole Server"),
        ("headers", "; did you mean 'additional_headers'?"),
        ("zzz", ""),
    ],
)
def test_an_unknown_keyword_is_refused_with_a_hint(keyword, hint):
    known = {"color", "additional_headers"}
    check_keywords("f", known, known)
    with pytest.raises(TypeError) as refused:
        check_keywords("f", ["color", keyword], known)
    assert str(refused.value) == f"f() got an unexpected keyword argument {keyword!r}{hint}"


def test_the_keywords_are_the_fields_of_options():
    assert typing.get_type_hints(OptionKeywords) == typing.get_type_hints(Options)
    assert OptionKeywords.__required_keys__ == frozenset()
    assert list(typing.get_type_hints(OptionKeywords)) == [
        field.name for field in dataclasses.fields(Options)
    ]


def test_every_option_is_in_the_table_with_its_consequence():
    table = option_table()
    assert [row["name"] for row in table] == [field.name for field in dataclasses.fields(Options)]
    assert all(row["consequence"] for row in table)
    assert {row["used_by"] for row in table} == {"both", "client", "server"}
    assert table[0] == {
        "name": "open_timeout",
        "unit": "s",
        "default": "10.0",
        "used_by": "both",
        "consequence": dataclasses.fields(Options)[0].metadata["consequence"],
    }


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("server_max_window_bits", 8, 15),
        ("client_max_window_bits", 8, 15),
        ("level", 1, 9),
        ("mem_level", 1, 9),
    ],
)
def test_a_deflate_setting_out_of_bounds_is_refused_by_name(name, low, high):
    for value in (low, high):
        assert getattr(Deflate(**{name: value}), name) == value
    for value in (low - 1, high + 1, True, "9", 9.0):
        with pytest.raises(ValueError, match=f"{name} must be between {low} and {high}, not "):
            Deflate(**{name: value})
    if name != "server_max_window_bits":
        with pytest.raises(ValueError, match=f"{name} must be between {low} and {high}, not None"):
            Deflate(**{name: None})


@pytest.mark.parametrize("value", [True, False, "/records", print])
def test_a_recorder_is_on_off_a_directory_or_a_function(value):
    assert Options(recorder=value).recorder == value


@pytest.mark.parametrize("path", [pathlib.Path("a") / "b", os.path.join("a", "b")])
def test_a_directory_for_records_stays_the_same_if_the_process_changes_its_own(path):
    assert Options(recorder=path).recorder == os.path.join(os.getcwd(), "a", "b")


@pytest.mark.parametrize(
    ("value", "error"), [(1, TypeError), (None, TypeError), ("", ValueError), ("a\0b", ValueError)]
)
def test_another_recorder_is_refused(value, error):
    with pytest.raises(error, match="recorder must be"):
        Options(recorder=value)


async def _coroutine_function(ending):
    raise AssertionError


def test_a_coroutine_function_is_no_recorder_because_nothing_would_await_it():
    with pytest.raises(TypeError, match="recorder must be a bool, a path or a plain function"):
        Options(recorder=_coroutine_function)


def test_a_path_of_bytes_is_refused():
    class Path(os.PathLike):
        def __fspath__(self):
            return b"records"

    with pytest.raises(TypeError, match="recorder must be a str"):
        Options(recorder=Path())
