"""The choice of the event loop where the library starts one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["check_system", "loop_factory", "memory_of"]


def check_system() -> None:
    """Raise NotImplementedError on Windows, whose sockets are not descriptors for ``os.readv``."""
    if sys.platform == "win32":
        raise NotImplementedError(
            "endwell does not run on Windows itself: use Linux, macOS or the Windows Subsystem for Linux"
        )


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory if uvloop is installed, otherwise None for asyncio's default."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def memory_of(loop: asyncio.AbstractEventLoop) -> Any:
    """Return the :class:`~endwell.aio.memory.Memory` that has all connections of ``loop``; None for any other loop.

    Not by the class of the loop, so that ``memory.py`` and ``virtual.py`` are imported by tests only.
    """
    return getattr(loop, "_endwell_memory", None)
