"""Where connections can be served and opened, and which event loop runs if it is ours to choose."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

__all__ = ["check_system", "loop_factory"]


def check_system() -> None:
    """Raise NotImplementedError on Windows, which has no descriptors that a loop can watch and ``os.readv`` can read."""
    if sys.platform == "win32":
        raise NotImplementedError(
            "endwell serves and opens no connections on Windows itself: use Linux, macOS or the Windows Subsystem for Linux"
        )


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """That of uvloop where it is installed, else None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
