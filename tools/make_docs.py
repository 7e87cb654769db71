"""Write the reference tables from the code: docs/reference/*.md.

`make docs` runs it; `make check` runs it with --check, which writes nothing and
fails if a table is out of date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from endwell.client.retry import RetryPolicy, StopReason, retry_of_status
from endwell.codes import RANGES, CloseCode, CodeRange, Retry
from endwell.ending import Cause
from endwell.metrics.families import DURATION_BUCKETS, FAMILIES, LATENCY_BUCKETS
from endwell.options import option_table
from endwell.protocol.closing import IGNORED, TABLE, Cue, Do, State

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
RECONNECT = (
    '\nThe column "reconnect" says what `reconnecting` does: `never` connects again, connects `now` (within a few\n'
    "seconds), or `later` (after a back-off). [Reconnecting](../howto/reconnect.md#when) has the times.\n"
)
MADE = "<!-- Made by tools/make_docs.py from {source}: change that, then run `make docs`. -->\n\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def closing() -> str:
    """The closing table and its diagram."""
    rows = [
        (start.name, cue.name, row.state.name, ", ".join(do.name for do in row.do) or "-")
        for (start, cue), row in TABLE.items()
    ]
    edges: dict[tuple[State, State], list[str]] = {}
    for (start, cue), row in TABLE.items():
        edges.setdefault((start, row.state), []).append(cue.name)
    arrows = "".join(
        f"    {start.name} --> {end.name}: {', '.join(cues)}\n" for (start, end), cues in edges.items()
    )
    return (
        "# The closing table\n\n"
        f"{MADE.format(source='src/endwell/protocol/closing.py')}"
        "The states of a connection, from its first byte to its last. In each state, a cue (an event, such as a\n"
        'received Close) leads to the next state and to the actions in the column "do". The first cue that\n'
        "closes determines the cause and the initiator of the ending.\n\n"
        f"```mermaid\nstateDiagram-v2\n    [*] --> OPENING\n{arrows}    ENDED --> [*]\n```\n\n"
        f"{table(('state', 'cue', 'next state', 'do'), rows)}\n"
        f"The other {len(IGNORED)} pairs change nothing.\n\n"
        f"{table(('state', 'meaning'), [(state.name, state.value) for state in State])}\n"
        f"{table(('cue', 'meaning'), [(cue.name, cue.value) for cue in Cue])}\n"
        f"{table(('do', 'meaning'), [(do.name, do.value) for do in Do])}"
    )


def codes() -> str:
    """The close codes and their ranges."""

    def row(code: str, name: str, of: CloseCode | CodeRange) -> tuple[str, ...]:
        wire = {(True, True): "yes", (False, False): "never"}[of.may_send, of.may_receive]
        return code, name, of.meaning, wire, "yes" if of.clean else "no", of.retry.value

    head = ("code", "name", "meaning", "on the wire", "ordinary", "reconnect")
    named = [row(str(int(code)), code.name, code) for code in CloseCode]
    ranges = [row(f"{each.first}-{each.last}", "", each) for each in RANGES]
    return (
        "# Close codes\n\n"
        f"{MADE.format(source='src/endwell/codes.py')}"
        '`endwell why CODE` shows the usual causes of a code and what to do. An "ordinary" code raises\n'
        "`ConnectionClosedOK`, any other `ConnectionClosedError`.\n"
        f"{RECONNECT}\n"
        f"{table(head, named)}\nThe ranges apply to codes without a row of their own:\n\n{table(head, ranges)}"
    )


def causes() -> str:
    """The causes of endings."""
    rows = [
        (
            cause.name,
            cause.meaning,
            cause.initiator.name,
            f"{int(cause.close_code)}" if cause.close_code else "-",
            cause.retry.value,
        )
        for cause in Cause
    ]
    head = ("cause", "meaning", "initiator", "Close sent", "reconnect")
    return (
        "# Causes\n\n"
        f"{MADE.format(source='src/endwell/ending.py')}"
        '`Ending.cause` is one of these. "Close sent" is the code of the Close that endwell sends for this cause,\n'
        "unless the application chooses another one. After PEER_CLOSED, the code of the received Close decides\n"
        "about reconnecting ([codes](codes.md)).\n"
        f"{RECONNECT}\n"
        f"{table(head, rows)}"
    )


def options() -> str:
    """The options."""
    rows = [
        (row["name"], row["default"], row["unit"] or "-", row["used_by"], row["consequence"])
        for row in option_table()
    ]
    return (
        "# Options\n\n"
        f"{MADE.format(source='src/endwell/options.py')}"
        "Each is a field of `endwell.Options` and a keyword of `Server(...)` and `connect(...)`, so that both can\n"
        "share one object. A client ignores the options of a server, and a server those of a client.\n\n"
        f"{table(('option', 'default', 'unit', 'used by', 'meaning'), rows)}"
    )


def retry() -> str:
    """The retry policy."""
    limits = [
        (limit.name, str(limit.default), limit.metadata["unit"], limit.metadata["consequence"])
        for limit in fields(RetryPolicy)
        if limit.metadata
    ]
    passing = [str(status) for status in range(400, 500) if retry_of_status(status) is Retry.LATER]
    lasting = [str(status) for status in range(500, 600) if retry_of_status(status) is Retry.NEVER]
    return (
        "# The retry policy\n\n"
        f"{MADE.format(source='src/endwell/client/retry.py')}"
        "When `endwell.reconnecting` reconnects: [reconnecting](../howto/reconnect.md). Whether it does is a column\n"
        "of [the codes](codes.md) and, if the server sent no Close, of [the causes](causes.md).\n\n"
        f"After an HTTP response other than 101, it reconnects for {', '.join(passing)} and for 5xx except\n"
        f"{' and '.join(lasting)}. `RetryPolicy(codes={{...}})` overrides this for single codes and statuses.\n\n"
        f"{table(('field', 'default', 'unit', 'meaning'), limits)}\n"
        f"{table(('why it stops', 'meaning'), [(stop.name, stop.value) for stop in StopReason])}"
    )


def metrics() -> str:
    """The metrics."""
    rows = [
        (
            f"`{each.name}{'_total' if each.kind == 'counter' else ''}`",
            each.kind,
            ", ".join(each.labels) or "-",
            each.text,
        )
        for each in FAMILIES
    ]
    durations, latencies = (
        ", ".join(f"{limit:g}" for limit in buckets) for buckets in (DURATION_BUCKETS, LATENCY_BUCKETS)
    )
    return (
        "# Metrics\n\n"
        f"{MADE.format(source='src/endwell/metrics/families.py')}"
        "What `server.metrics`, the page of `server.metrics_page()` and `--metrics-port` have:\n"
        "[metrics](../howto/metrics.md).\n\n"
        f"{table(('name', 'type', 'labels', 'meaning'), rows)}\n"
        f"Upper limits of the buckets, in seconds. Durations: {durations}.\n"
        f"Latencies: {latencies}.\n"
    )


PAGES = {
    "closing.md": closing,
    "codes.md": codes,
    "causes.md": causes,
    "options.md": options,
    "retry.md": retry,
    "metrics.md": metrics,
}


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    check = parser.parse_args().check
    REFERENCE.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, make in PAGES.items():
        path, text = REFERENCE / name, make()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    if stale:
        print("out of date, run `make docs`:" if check else "written:", *stale)
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
