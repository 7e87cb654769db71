"""``endwell replay``: step a connection through the record of its ending, and say why each state changed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from ..ending import Close
from ..protocol.closing import Cue, Do
from ..protocol.record import Noted
from ..protocol.replay import Replayed, Step, Taken, replay
from .style import BOLD, DIM, GREEN, RED, paint, printable

__all__ = ["add", "run"]

#: Bytes of the largest file that is read. An ending with a record has at most about 6 KiB.
MAX_FILE = 64 * 1024

#: What each cue of a record tells.
_TELLS = {
    Noted.OPENED: "the opening handshake succeeded",
    Noted.PING: "a ping was sent",
    Noted.PING_UNREAD: "a ping was sent, while reading was paused",
    Noted.DUE: "a limit of time has passed",
    Noted.DUE_UNREAD: "a limit of time has passed, while reading was paused",
    Noted.PINGED: "the application sent a ping",
    Noted.PONG: "a pong came",
    Noted.PONGS: "a pong came, for {0} pings",
    Noted.TICK: "a ping is not answered yet",
    Noted.TICK_UNREAD: "a ping is not answered yet, while reading was paused",
    Noted.STALLED: "this process did not run for {1:.3f} s",
    Noted.CLOSE: "this side closes: {0.meaning}",
    Noted.FAILED: "the connection fails: {0.meaning}",
    Noted.PEER_CLOSE: "a Close came",
    Noted.PEER_CLOSE_BEHIND: "a Close came, while the application handles messages",
    Noted.FAULT: "the peer broke a rule",
    Noted.HANDLED: "the application has handled all messages",
    Noted.EOF: "the peer ended TCP (FIN)",
    Noted.BROKEN: "a write failed",
    Noted.LOST: "the connection failed",
    Noted.GONE: "TCP ended",
    Noted.TIME_UP: "the time of the state is over",
    Noted.SENT: "everything was sent, and the peer had ended TCP before",
}
#: What this side does in a transition, as far as the peer can notice it.
_DOES = {
    Do.STOP_PARSING: "discards what comes",
    Do.FIN: "ends TCP once everything is sent",
    Do.HOLD_EOF: "sends the answers first",
    Do.ABORT: "aborts TCP",
}

_TEST = '''"""A recorded connection ends as it did: {sentence}"""

import json

from endwell.testing import replay

RECORDED = json.loads(
{lines}
)


def test_the_recorded_connection_ends_with_{cause}():
    ending = replay(RECORDED)
    assert ending.cause.value == {cause!r}
    assert ending.as_dict() == {{name: value for name, value in RECORDED.items() if name != "record"}}
'''
#: Characters of a line of text in the test.
_LINE = 90


# argparse has no public name for the type.
def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("replay", help="step through the record of an ending", description=__doc__)
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a file of the option recorder, or another with Ending.as_dict() as JSON; -: stdin",
    )
    parser.add_argument(
        "--as-test", action="store_true", help="write a test for pytest that replays the record"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay ``args.file``. Returns 1 if the ending is another than the recorded one, 2 if it cannot be replayed."""
    try:
        values = json.loads(_read(args.file), parse_constant=_refuse)
        replayed = replay(values)
    except RecursionError:
        return _complain(args.file, "the JSON is nested too deeply")
    except json.JSONDecodeError as error:
        return _complain(args.file, f"it is not JSON: {error}")
    except (OSError, TypeError, ValueError, OverflowError) as error:
        return _complain(args.file, error)
    if args.as_test:
        print(_as_test(replayed), end="")
        return 0 if not replayed.differences() else 1
    print("\n".join(printable_lines(_report(replayed))))
    return 0 if not replayed.differences() else 1


def _complain(file: str, error: object) -> int:
    print(f"endwell replay: {printable(file)}: {printable(str(error))}", file=sys.stderr)
    return 2


def _read(name: str) -> bytes:
    if name == "-":
        content = sys.stdin.buffer.read(MAX_FILE + 1)
    else:
        with open(name, "rb") as file:
            content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"the file has more than {MAX_FILE} bytes")
    return content


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def printable_lines(lines: Iterator[tuple[str, str]]) -> Iterator[str]:
    """Paint each line with its style. Text of the peer is escaped."""
    for text, style in lines:
        yield paint(printable(text), style) if style else printable(text)


def _report(replayed: Replayed) -> Iterator[tuple[str, str]]:
    yield f"a {replayed.role}'s connection; times in seconds since it began", DIM
    if replayed.dropped:
        yield f"{replayed.dropped} older cues are not in the record", DIM
    for step in replayed.steps:
        yield from _lines(step)
    yield "", ""
    yield "the connection has not ended" if replayed.ending is None else str(replayed.ending), BOLD
    differences = replayed.differences()
    if not differences:
        yield "identical to the recorded ending", GREEN
        return
    yield "differs from the recorded ending:", RED
    for name, (recorded, found) in differences.items():
        yield f"  {name}: recorded {recorded!r}, replayed {found!r}", RED


def _lines(step: Step) -> Iterator[tuple[str, str]]:
    traffic = ", ".join(_traffic(step))
    if traffic:
        yield f"{'':10}  {traffic}", DIM
    yield f"{step.at:10.3f}  {_TELLS[step.noted].format(*step.details)}", DIM
    for row in step.rows:
        yield f"{'':10}  {row.before.name} -> {row.after.name}, because of {row.cue.name}: {_why(row)}", ""


def _traffic(step: Step) -> Iterator[str]:
    for (messages, size), way in ((step.received, "received"), (step.sent, "sent")):
        if messages:
            yield f"{messages} {'message' if messages == 1 else 'messages'} and {size} bytes {way}"
        elif size:
            yield f"{size} bytes {way}"
    if step.unsent:
        yield f"{step.unsent} bytes wait to be sent"


def _why(row: Taken) -> str:
    # For TIME_UP, the facts are more exact than the text of the cue, which covers all states.
    parts = ["the deadline of this state passed" if row.cue is Cue.TIME_UP else row.cue.value]
    if row.why:
        parts.append(row.why)
    done = [_sent(row.close)] if row.close is not None else []
    done += [_DOES[do] for do in row.do if do in _DOES]
    if done:
        parts.append(f"this side {', '.join(done)}")
    return "; ".join(parts)


def _sent(close: Close) -> str:
    return f"sends Close {close}"


def _as_test(replayed: Replayed) -> str:
    recorded: dict[str, Any] = replayed.recorded.as_dict()
    text = json.dumps(recorded)
    pieces = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return _TEST.format(
        # Quotes are escaped, so that text of the peer stays text. The test is ASCII, because a module is read as
        # UTF-8, and the encoding of standard output may be another one.
        sentence=ascii(recorded["text"])[1:-1].replace('"', "'"),
        lines="\n".join(f"    {piece!r}" for piece in pieces),
        cause=replayed.recorded.cause.value,
    )
