"""Was a task cancelled, or only something that it awaits?"""

from __future__ import annotations

import asyncio

__all__ = ["is_cancelled"]


def is_cancelled() -> bool:
    """Whether a CancelledError that has just been raised is that of the current task.

    Otherwise the application has awaited something that was cancelled, or has raised it.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
