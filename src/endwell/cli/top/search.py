"""Asks all addresses of a server at the same time, and takes the first answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Hashable
from typing import NamedTuple, TypeVar

from ...aio.syscalls import monotonic
from ...client.connect import ConnectKeywords
from ...errors import ConnectionClosed, HandshakeError, HandshakeRejected
from ..options import certificate_hint
from .find import Place

__all__ = ["NOT_UNDERSTOOD", "OPEN_TIME", "Failure", "NoAnswer", "Target", "first_answer"]

_Answer = TypeVar("_Answer")

#: Seconds for an opening handshake, and for the whole answer of an address: the attempts with and without TLS included.
OPEN_TIME = 10.0
ANSWER_TIME = 15.0
#: What a message of a server with another format may raise; RuntimeError includes RecursionError.
NOT_UNDERSTOOD = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Target(NamedTuple):
    """A URL of the feed, and how to connect."""

    url: str
    keywords: ConnectKeywords

    @property
    def address(self) -> Hashable:
        """The address, which is the same with and without TLS."""
        return self.url.partition("://")[2], self.keywords.get("unix_path")


class Failure(Exception):
    """A target has not given an answer.

    ``error`` is why: HandshakeError, ConnectionClosed, TimeoutError, or one of :data:`NOT_UNDERSTOOD`.
    """

    def __init__(self, target: Target, error: Exception) -> None:
        super().__init__(target, error)
        self.target, self.error = target, error

    @property
    def progress(self) -> int:
        """How far the attempt has come: to the feed, to an answer of a server, to its certificate, or less far."""
        if not isinstance(self.error, HandshakeError):
            return 3
        if isinstance(self.error, HandshakeRejected):
            return 2
        return int(bool(certificate_hint(self.error.ending.exception)))

    def __str__(self) -> str:
        url, path = self.target.url, self.target.keywords.get("unix_path")
        # The text of a HandshakeError begins with the URL, which is the same for all Unix sockets.
        text = str(self.error) if isinstance(self.error, HandshakeError) else f"{url}: {self._reason()}"
        return text if path is None else f"{Place(url, os.fspath(path))}: {text}"

    def _reason(self) -> str:
        if isinstance(self.error, TimeoutError):
            return f"no answer within {ANSWER_TIME:g} s"
        if isinstance(self.error, ConnectionClosed):
            return str(self.error)
        return "the server sends what this version of endwell does not understand"


class NoAnswer(Exception):
    """No address has given an answer: ``failures`` has one of each, the one that has come furthest first."""

    def __init__(self, failures: list[Failure]) -> None:
        self.failures = sorted(failures, key=lambda each: each.progress, reverse=True)
        super().__init__(self.failures)


async def first_answer(
    targets: list[Target], ask: Callable[[Target], Awaitable[_Answer]]
) -> tuple[Target, _Answer]:
    """Ask all addresses at the same time. Returns the first answer, and whose it is.

    The targets with the same address are asked one after the other, until there is an answer.

    Raises:
        NoAnswer: There was none within 15 s.
    """
    addresses: dict[Hashable, list[Target]] = {}
    for target in targets:
        addresses.setdefault(target.address, []).append(target)
    tasks = [asyncio.create_task(_ask_address(each, ask)) for each in addresses.values()]
    failures: list[Failure] = []
    try:
        for task in asyncio.as_completed(tasks):
            try:
                return await task
            except Failure as failure:
                failures.append(failure)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise NoAnswer(failures)


async def _ask_address(
    targets: list[Target], ask: Callable[[Target], Awaitable[_Answer]]
) -> tuple[Target, _Answer]:
    """Raises Failure: that of the attempt that has come furthest."""
    failures: list[Failure] = []
    began = monotonic()
    try:
        async with asyncio.timeout(ANSWER_TIME):
            for target in targets:
                try:
                    return target, await ask(target)
                except (HandshakeError, ConnectionClosed, *NOT_UNDERSTOOD) as error:
                    failures.append(Failure(target, error))
                # An address that speaks HTTP does not speak TLS: a server would log a malformed request. One that
                # was silent for OPEN_TIME is silent with TLS, too.
                if failures[-1].progress > 1 or monotonic() - began >= OPEN_TIME:
                    break
    except TimeoutError as error:
        failures.append(Failure(target, error))
    raise max(failures, key=lambda each: each.progress)
