"""The ``endwell`` command."""

from __future__ import annotations

import argparse
import io
import platform
import sys
from collections.abc import Sequence

from ..aio.loop import check_system
from ..build import __version__, compiled, failure
from . import connect, demo, serve, why
from .streams import discard_output, open_missing

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (by default the process's) and return its exit status."""
    open_missing()
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A peer may send what the terminal's encoding does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    if args.run is not why.run:
        try:
            check_system()
        except NotImplementedError as error:
            print(f"endwell: {error}", file=sys.stderr)
            return 1
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell has it
    except BrokenPipeError:
        # The reader of the output has left.
        discard_output()
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="endwell", description="WebSockets that end well.")
    build = "compiled" if compiled() else "pure Python"
    reason = failure()
    if reason is not None:
        build += f", because it could not be compiled when it was installed: {reason}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    parser.add_argument("--version", action="version", version=f"endwell {__version__} ({build}) on {python}")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log everything, with tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in (demo, serve, connect, why):
        command.add(commands)
    for subparser in commands.choices.values():
        subparser.add_argument(
            "-v",
            "--verbose",
            action="count",
            # Or its default would undo a -v that stands before the command.
            default=argparse.SUPPRESS,
            help=subparser.get_default("verbose_help") or "log everything, with tracebacks",
        )
    return parser
