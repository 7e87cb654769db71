"""The Lua scripts that Redis runs. Each of them is atomic, so it decides for all processes.

The first two arguments of every script are the run id of the server and a new epoch. The times are those of the
server's clock, in milliseconds.
"""

from __future__ import annotations

from .leases import FORGET, LEASE, LIVES, RESERVE, RUN_CLOCK
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
]


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

# The hash of the presence has a field for each connection, c:PROCESS:NUMBER, with its grace and its key, and one
# for each key, k:KEY, in JSON: the info (i), the number of connections (n), the order in which the keys came (o),
# the process of the last connection (w), the time at which the key leaves (d), the call with which the key came (f),
# and whether it has left (g). A reply may get lost with its connection, so the process asks again: a key that has
# left stays until the process confirms that it has told its callbacks.
_PRESENCE = """
local hash = KEYS[1]
local function load(key)
  local text = redis.call('HGET', hash, 'k:' .. key)
  return text and cjson.decode(text)
end
local function save(key, entry)
  redis.call('HSET', hash, 'k:' .. key, cjson.encode(entry))
  redis.call('PEXPIRE', hash, 86400000)
end
local function drop(field, process)
  local found = redis.call('HGET', hash, field)
  if not found then
    return nil
  end
  redis.call('HDEL', hash, field)
  local grace, key = string.match(found, '^(%d+):(.*)$')
  local entry = load(key)
  if entry then
    entry.n = entry.n - 1
    if entry.n == 0 then
      entry.w = process
    end
  end
  return entry, key, tonumber(grace)
end
"""

#: Add a connection. Returns 1 if its key was not present, and 1 if this process is known. Asked again with the same
#: token, it returns the same. The token is empty if the callbacks know of the connection, and have not been told that
#: its key has left. If others have removed this process meanwhile, it does nothing then.
#
# A process that is not known gets a lease: after a loss of data, it may end before it has renewed its own.
ENTER = make_script(
    NOW,
    _PRESENCE,
    """
local process, connection, key, info, grace, room = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local call = ARGV[9] ~= '' and process .. ':' .. ARGV[9]
if not call and (redis.call('GET', KEYS[4]) or ARGV[11]) ~= ARGV[11] then
  return {0, 0}
end
local known = redis.call('ZSCORE', KEYS[2], process) and 1 or 0
if known == 0 then
  local clock = tonumber(redis.call('HGET', KEYS[5], 's') or now)
  redis.call('ZADD', KEYS[2], string.format('%.0f', clock + tonumber(ARGV[10])), process)
end
redis.call('SADD', KEYS[3], room)
local field = 'c:' .. process .. ':' .. connection
local entry = load(key)
local came = not entry or entry.g
if came then
  entry = {n = 0, f = call, o = redis.call('HINCRBY', hash, 'order', 1)}
end
if redis.call('HSET', hash, field, grace .. ':' .. key) == 1 or came then
  entry.n = entry.n + 1
end
entry.i, entry.w, entry.d = info, process, 0
save(key, entry)
return {call and entry.f == call and 1 or 0, known}
""",
    grows=True,
)

#: Remove a connection. Returns whether its key came with the call of this token, and the info if the key has left, ""
#: if it leaves after its grace, otherwise nil. After Redis was away, END says when it leaves.
LEAVE = make_script(
    NOW,
    RUN_CLOCK,
    _PRESENCE,
    """
local process, connection, grace = ARGV[3], ARGV[4], tonumber(ARGV[5])
local entry = load(ARGV[6])
local came = entry and entry.f == process .. ':' .. ARGV[7] and 1 or 0
entry = drop('c:' .. process .. ':' .. connection, process)
if not entry then
  return {came, false}
end
if entry.n > 0 then
  save(ARGV[6], entry)
  return {came, false}
end
local wait = grace
if grace == 0 then
  wait = select(2, run_clock(KEYS[2], tonumber(ARGV[8]), tonumber(ARGV[9])))
end
entry.d = now + grace
if wait > 0 then
  save(ARGV[6], entry)
  return {came, ''}
end
entry.g = true
save(ARGV[6], entry)
return {came, entry.i}
""",
)

#: End the grace of a key, if its last connection was one of this process. Returns the info if it has left, the
#: milliseconds until then if it is too early, otherwise nil. After Redis was away, it is too early until all processes
#: have returned, because the key may have a connection of another one.
END = make_script(
    NOW,
    RUN_CLOCK,
    _PRESENCE,
    """
local process, key = ARGV[3], ARGV[4]
local _, wait = run_clock(KEYS[2], tonumber(ARGV[5]), tonumber(ARGV[6]))
local entry = load(key)
if not entry or entry.n > 0 or entry.w ~= process then
  return false
end
wait = math.max(wait, entry.d - now)
if wait > 0 then
  return wait
end
entry.g = true
save(key, entry)
return entry.i
""",
)

#: Forget a key that has left, and the hash with its last key.
CONFIRM = make_script(
    NOW,
    _PRESENCE,
    """
local key = ARGV[3]
local entry = load(key)
if entry and entry.g then
  redis.call('HDEL', hash, 'k:' .. key)
  if redis.call('HLEN', hash) == 1 and redis.call('HEXISTS', hash, 'order') == 1 then
    redis.call('DEL', hash)
  end
end
return 1
""",
)

#: Go through a part of a room, from a cursor on. Remove the connections of a process that has ended. Its keys without
#: a connection belong to this process then. A process can also go through a room for itself. Returns the next cursor,
#: which is 0 at the end; these keys, each followed by the milliseconds until it leaves; and the process's own
#: connections, each followed by its grace and its key. Returns nil if the process has renewed its lease. It may come
#: back later, and learns then that its connections were removed.
#
# Redis does nothing else meanwhile, and a room may have any number of keys. A small hash has a single part.
BURY = make_script(
    NOW,
    _PRESENCE,
    LIVES,
    """
local dead, own, room = ARGV[3], ARGV[4], ARGV[5]
if dead ~= own and lives(KEYS[3], KEYS[4], dead) then
  return false
end
local prefix, left, stays = 'c:' .. dead .. ':', {}, {}
local function take(key, entry)
  entry.w = own
  save(key, entry)
  left[#left + 1] = key
  left[#left + 1] = math.max(entry.d - now, 0)
end
local cursor, fields = unpack(redis.call('HSCAN', hash, ARGV[6], 'COUNT', 200))
for number = 1, #fields, 2 do
  local field = fields[number]
  if string.sub(field, 1, 2) == 'k:' then
    local key = string.sub(field, 3)
    local entry = load(key)
    if entry and entry.n == 0 and entry.w == dead then
      take(key, entry)
    end
  elseif string.sub(field, 1, #prefix) ~= prefix then
    -- It is a connection of another process, or the order.
  elseif dead == own then
    stays[#stays + 1] = string.sub(field, #prefix + 1)
    stays[#stays + 1] = fields[number + 1]
  else
    local entry, key, grace = drop(field, dead)
    if entry and entry.n == 0 then
      entry.d = now + grace
      take(key, entry)
    elseif entry then
      save(key, entry)
    end
  end
end
if #left > 0 then
  redis.call('SADD', KEYS[2], room)
end
if dead ~= own then
  redis.call('SET', KEYS[6], ARGV[2], 'EX', 86400)
  if cursor == '0' then
    redis.call('SREM', KEYS[5], room)
  end
end
return {cursor, left, stays}
""",
)

#: Who is present: a part of the keys, after a cursor of the server with a run id. Returns this server's run id, the
#: next cursor, 0 at the end, and the keys with their values. A key that stays is in one of the parts, or in several.
PRESENCE = make_script("""
local cursor = ARGV[3] == ARGV[1] and ARGV[4] or '0'
local reply = redis.call('HSCAN', KEYS[1], cursor, 'MATCH', 'k:*', 'COUNT', 500)
local fields = reply[2]
for number = 1, #fields, 2 do
  fields[number] = string.sub(fields[number], 3)
end
return {ARGV[1], reply[1], fields}
""")

SCRIPTS = (PUBLISH, PAGE, ENTER, LEAVE, END, CONFIRM, BURY, PRESENCE, LEASE, FORGET, RESERVE)
SHARDED_SCRIPTS = (PUBLISH_SHARDED, *SCRIPTS[1:])
