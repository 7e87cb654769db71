"""Log records as JSON."""

import datetime as dt
import io
import json
import logging
import logging.config
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endwell.logs import JsonFormatter

FORGED = "\r\nCRITICAL forged \x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}\N{LINE SEPARATOR}\0\x85"


def record(message="ready", *args, **fields):
    exc_info = fields.pop("exc_info", None)
    made = logging.getLogger("chat").makeRecord("chat", logging.INFO, "chat.py", 1, message, args, exc_info)
    vars(made).update(fields)
    return made


def line(made, **options):
    written = JsonFormatter(**options).format(made)
    assert written.isascii()
    assert written.isprintable()
    return json.loads(written)


def test_a_record_is_an_object_with_its_fields():
    made = record("on port %d", 80, created=1764460800.9876, process=7, ending={"code": 1000})
    assert line(made) == {
        "time": "2025-11-30T00:00:00.987Z",
        "level": "INFO",
        "logger": "chat",
        "message": "on port 80",
        "process": 7,
        "ending": {"code": 1000},
    }
    time = dt.datetime.fromisoformat(line(made)["time"])
    assert time.tzinfo == dt.UTC


def test_an_exception_and_a_stack_are_text():
    try:
        int("bad\nvalue")
    except ValueError:
        made = record(exc_info=sys.exc_info(), stack_info="Stack:\n  here")
    row = line(made)
    assert row["exception"].startswith("Traceback (most recent call last):\n")
    assert row["exception"].endswith("ValueError: invalid literal for int() with base 10: 'bad\\nvalue'")
    assert row["stack"] == "Stack:\n  here"
    assert line(made) == row  # the text of the traceback is kept in the record


def test_a_text_that_forges_a_line_is_escaped_everywhere():
    row = line(record(f"path {FORGED}", reason=FORGED, **{FORGED: {FORGED: [FORGED]}}))
    assert row["message"] == f"path {FORGED}"
    assert row[FORGED] == {FORGED: [FORGED]}


class Wrong:
    def __str__(self):
        raise RuntimeError("for the test")


def loop():
    value = []
    value.append(value)
    return value


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("make", "written"),
    [
        (lambda: dt.date(2026, 11, 30), "2026-11-30"),
        (lambda: [{1}], ["{1}"]),
        (lambda: float("nan"), "nan"),
        (lambda: {"a": float("inf")}, "{'a': inf}"),
        (lambda: {(1, 2): 3}, "{(1, 2): 3}"),
        (Wrong, "<Wrong without a text>"),
        (loop, "[[...]]"),
        (lambda: "\ud800", "\ud800"),
        (lambda: b"\n", "b'\\n'"),
    ],
)
def test_a_value_that_json_does_not_have_is_text(make, written):
    row = line(record(value=make(), other=1))
    assert row["value"] == written
    assert row["other"] == 1


def test_a_value_that_is_too_deep_is_no_error():
    assert line(record(value=deep(), other=1))["other"] == 1


def test_fields_do_not_replace_those_of_the_record():
    row = line(record(level="mine", time=0, logger="x", exception="y", color_message="\x1b[1mready"))
    assert (row["level"], row["level_"], row["time_"]) == ("INFO", "mine", 0)
    assert (row["logger"], row["logger_"], row["exception_"]) == ("chat", "x", "y")
    assert "color_message" not in row
    assert "exception" not in row


def test_defaults_are_fields_of_every_record_without_them():
    assert line(record(), defaults={"service": "chat"})["service"] == "chat"
    assert line(record(service="own"), defaults={"service": "chat"})["service"] == "own"


def test_the_fields_of_formatters_and_of_python_are_left_out():
    made = record()
    logging.Formatter("%(asctime)s %(message)s").format(made)
    made.taskName = "Task-1"
    assert set(line(made)) == {"time", "level", "logger", "message", "process"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=5,
)


@settings(max_examples=30)
@given(st.text(), st.dictionaries(st.text(min_size=1), VALUES))
def test_any_record_is_one_line_of_json(message, fields):
    made = record("%s", message)
    vars(made).update({f"x{name}": value for name, value in fields.items()})
    row = line(made)
    assert row["message"] == message
    assert set(row) >= {f"x{name}" for name in fields}


@pytest.fixture
def chat():
    """A logger whose configuration ends with the test."""
    logger = logging.getLogger("chat.configured")
    yield logger
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    "formatter",
    [
        {"()": "endwell.logs.JsonFormatter"},
        {"()": JsonFormatter, "defaults": {}},
        {"class": "endwell.logs.JsonFormatter"},
        {"class": "endwell.logs.JsonFormatter", "format": "%(message)s", "datefmt": "%H", "style": "%"},
    ],
    ids=str,
)
def test_dict_config_takes_the_formatter(formatter, chat):
    output = io.StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "incremental": False,
            "formatters": {"json": formatter},
            "handlers": {"out": {"class": "logging.StreamHandler", "stream": output, "formatter": "json"}},
            "loggers": {"chat.configured": {"level": "INFO", "handlers": ["out"], "propagate": False}},
        }
    )
    chat.info("ready", extra={"port": 80})
    assert json.loads(output.getvalue())["port"] == 80
