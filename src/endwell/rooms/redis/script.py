"""What all Lua scripts have that Redis runs."""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple

__all__ = ["NOW", "Script", "make_script"]


class Script(NamedTuple):
    """A script, and its name in Redis."""

    text: str
    sha: str


def make_script(*parts: str, grows: bool = False) -> Script:
    """Make a script. Above ``maxmemory``, Redis runs it unless it ``grows``: what is in Redis can be read and removed."""
    text = "".join(parts if grows else ("#!lua flags=allow-oom\n", *parts))
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


#: The begin of a script that needs the time.
NOW = """
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local now = now_ms()
"""
