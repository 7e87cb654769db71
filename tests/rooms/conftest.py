from __future__ import annotations

from .patience import patient

__all__ = ["patient"]
