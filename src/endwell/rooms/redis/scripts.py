"""The Lua scripts that Redis runs. Each of them is atomic, so it decides for all processes.

The first two arguments of every script are the run id of the server and a new epoch. The times are those of the
server's clock, in milliseconds.
"""

from __future__ import annotations

from .leases import FORGET, LEASE, RESERVE
from .presence_scripts import BURY, CONFIRM, END, ENTER, LEAVE, PRESENCE
from .script import NOW, make_script

__all__ = [
    "BURY",
    "CONFIRM",
    "END",
    "ENTER",
    "LEAVE",
    "PAGE",
    "PRESENCE",
    "PUBLISH",
    "PUBLISH_SHARDED",
    "SCRIPTS",
    "SHARDED_SCRIPTS",
    "to_ms",
]

#: Maximum number of milliseconds, 140,000 years. The numbers of Lua are exact below 2**53.
MAX_MS = 1 << 52


def to_ms(seconds: float) -> int:
    """A time in milliseconds, as an argument of a script."""
    return min(round(seconds * 1000), MAX_MS)


# The hash has the epoch (e), the number of the last publication (s), the number before the first one of the epoch
# (o), the run id (r), the size of the history (b) and the time until which it reaches (x).
#
# Another run id means that Redis has restarted, or that a replica has taken over. Both may have lost the newest
# publications, so their numbers may be given to others: the epoch changes. The history is still true.
_ROOM = """
local meta, stream, forget = KEYS[1], KEYS[2], tonumber(ARGV[3])
local found = redis.call('HMGET', meta, 'e', 's', 'o', 'r', 'b', 'x')
local epoch, sequence, base = found[1], tonumber(found[2] or 0), tonumber(found[3] or 0)
local size, reach = tonumber(found[5] or 0), tonumber(found[6] or 0)
if not epoch then
  redis.call('DEL', stream)
end
if not epoch or found[4] ~= ARGV[1] then
  epoch, base = ARGV[2], sequence
end
local function id(number)
  return string.format('%.0f-0', number)
end
local function trim(messages, bytes)
  local count = redis.call('XLEN', stream)
  while count > 0 do
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if count <= messages and size <= bytes and tonumber(oldest[2][4]) > now then
      return
    end
    redis.call('XDEL', stream, oldest[1])
    size = size - tonumber(oldest[2][6])
    count = count - 1
  end
  size = 0
end
local function keep()
  redis.call('HSET', meta, 'e', epoch, 's', string.format('%.0f', sequence), 'o', string.format('%.0f', base),
    'r', ARGV[1], 'b', size, 'x', string.format('%.0f', reach))
  redis.call('PEXPIRE', meta, math.max(forget, reach - now))
end
"""

#: Number a message, keep it, trim the history, and publish it. Returns the epoch, the number, and how many
#: processes are subscribed.
PUBLISH = make_script(
    # Without a history, most publications change nothing but the number.
    """
if ARGV[7] == '0' then
  local found = redis.call('HMGET', KEYS[1], 'e', 'r', 'x')
  if found[1] and found[2] == ARGV[1] and found[3] == '0' then
    local sequence = redis.call('HINCRBY', KEYS[1], 's', 1)
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    local heard = found[1] .. string.format('%.0f ', sequence) .. ARGV[5]
    return {found[1], sequence, redis.call('PUBLISH', ARGV[4], heard)}
  end
end
""",
    NOW,
    _ROOM,
    """
local channel, payload, octets = ARGV[4], ARGV[5], tonumber(ARGV[6])
local messages, ms, bytes = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
sequence = sequence + 1
if messages > 0 then
  redis.call('XADD', stream, id(sequence), 'd', payload, 't', string.format('%.0f', now + ms), 'n', octets)
  size = size + octets
  reach = math.max(reach, now + ms)
  trim(messages, bytes)
  redis.call('PEXPIRE', stream, math.max(reach - now, 1))
else
  -- The history must have no hole, so it cannot continue behind a message that is not kept.
  redis.call('DEL', stream)
  size, reach = 0, 0
end
keep()
local heard = epoch .. string.format('%.0f ', sequence) .. payload
return {epoch, sequence, redis.call('PUBLISH', channel, heard)}
""",
    grows=True,
)

#: The same in a cluster, where a channel is in the slot of its name, as a key is.
PUBLISH_SHARDED = make_script(PUBLISH.text.replace("'PUBLISH'", "'SPUBLISH'"), grows=True)

#: Read the history after a position. Returns the epoch, the number, the number before the first one of the epoch,
#: and the entries of the stream. Keeps the room and the hash of its presence from being forgotten.
PAGE = make_script(
    NOW,
    _ROOM,
    """
trim(math.huge, math.huge)
keep()
redis.call('PEXPIRE', KEYS[3], 86400000)
local after, limit = tonumber(ARGV[5]), tonumber(ARGV[6])
local entries = {}
if limit ~= 0 then
  local start = '-'
  if ARGV[4] == epoch and after <= sequence then
    start = id(after + 1)
  end
  if limit > 0 then
    entries = redis.call('XRANGE', stream, start, '+', 'COUNT', limit)
  else
    entries = redis.call('XRANGE', stream, start, '+')
  end
end
return {epoch, sequence, base, entries}
""",
)

SCRIPTS = (PUBLISH, PAGE, ENTER, LEAVE, END, CONFIRM, BURY, PRESENCE, LEASE, FORGET, RESERVE)
SHARDED_SCRIPTS = (PUBLISH_SHARDED, *SCRIPTS[1:])
