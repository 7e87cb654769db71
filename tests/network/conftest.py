from __future__ import annotations

from tests.rooms.patience import patient

__all__ = ["patient"]
