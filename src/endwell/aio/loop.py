"""The choice of the event loop where the library starts one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

__all__ = ["check_system", "loop_factory"]


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
