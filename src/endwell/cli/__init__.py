"""The ``endwell`` command."""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
from collections.abc import Mapping, Sequence

from ..aio.loop import check_system
from ..build import __version__, compiled, failure
from . import connect, demo, replay, serve, why
from .streams import discard_output, open_missing
from .top import command as top
from .variables import with_variables

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: ``sys.argv[1:]``); returns the exit status."""
    open_missing()
    args = _parse(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A peer may send characters that the terminal's encoding does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    if args.run not in (why.run, replay.run):
        try:
            check_system()
        except NotImplementedError as error:
            print(f"endwell: {error}", file=sys.stderr)
            return 1
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, the convention of shells
    except BrokenPipeError:
        # The reader of the output has exited.
        discard_output()
        return 1
    return status


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser, commands = _parser()
    at = next((index for index, word in enumerate(argv) if not word.startswith("-")), len(argv))
    if argv[at : at + 1] == ["serve"]:
        argv = [*argv[: at + 1], *with_variables(commands["serve"], argv[at + 1 :], os.environ)]
    return parser.parse_args(argv)


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser, and those of the commands."""
    parser = argparse.ArgumentParser(prog="endwell", description="WebSockets that end well.")
    build = "compiled" if compiled() else "pure Python"
    reason = failure()
    if reason is not None:
        build += f", because it could not be compiled when it was installed: {reason}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    parser.add_argument("--version", action="version", version=f"endwell {__version__} ({build}) on {python}")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="more log output, with tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in (demo, serve, connect, top, why, replay):
        command.add(commands)
    for subparser in commands.choices.values():
        subparser.add_argument(
            "-v",
            "--verbose",
            action="count",
            # Without SUPPRESS, the default would overwrite a -v that comes before the command.
            default=argparse.SUPPRESS,
            help=subparser.get_default("verbose_help") or "more log output, with tracebacks",
        )
    return parser, commands.choices
