"""The libraries that are measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Contender:
    """A library, or one of its interfaces: ``servers/MODULE.py`` and ``clients/MODULE.py``."""

    name: str
    module: str
    #: The packages that do the work for it.
    packages: tuple[str, ...] = ()
    has_client: bool = True
    has_deflate: bool = True
    #: Whether its calls block; blocking contenders are compared only with each other.
    blocking: bool = False
    #: Another source tree of endwell than the installed one.
    source: Path | None = None


OURS = "endwell"
BASELINE = "picows listener"
OURS_BLOCKING = "endwell sync"
BASELINE_BLOCKING = "websockets sync"

CONTENDERS = (
    Contender(OURS, "endwell"),
    Contender(BASELINE, "picows_listener", ("picows", "aiofastnet"), has_deflate=False),
    Contender("picows coroutine", "picows_coroutine", ("picows",)),
    Contender("aiohttp", "aiohttp", ("aiohttp",)),
    Contender("websockets", "websockets", ("websockets",)),
    Contender("uvicorn", "uvicorn", ("uvicorn", "starlette", "websockets"), has_client=False),
    Contender(OURS_BLOCKING, "endwell_sync", blocking=True),
    Contender(BASELINE_BLOCKING, "websockets_sync", ("websockets",), blocking=True),
)


def another(text: str) -> Contender:
    """Another source tree of endwell, from ``NAME=FOLDER``."""
    name, _, folder = text.partition("=")
    source = Path(folder).resolve()
    if not (source / "endwell").is_dir():
        raise ValueError(f"{folder!r} has no folder endwell in it")
    return Contender(name, "endwell", source=source)


def versions() -> Iterator[str]:
    """Name and version of every package that does the work."""
    for name in sorted({"uvloop"}.union(*(contender.packages for contender in CONTENDERS))):
        yield f"{name} {version(name)}"
