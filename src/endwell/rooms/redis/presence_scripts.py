"""The Lua scripts of who is present: see :mod:`.scripts`."""

from __future__ import annotations

from .leases import LIVES, RUN_CLOCK
from .script import NOW, make_script

__all__ = ["BURY", "CONFIRM", "END", "ENTER", "LEAVE", "PRESENCE"]

# The hash of the presence has a field for each connection, c:PROCESS:NUMBER, with its grace and its key, and one
# for each key, k:KEY, in JSON: the info (i), the number of connections (n), the order in which the keys came (o),
# the process of the last connection (w), and the time at which the key leaves (d).
#
# Of each coming and each leaving, one process owes a call of the callbacks. The name of the duty is PROCESS:NUMBER.
# It stays in the entry until the process confirms that it has called them: a reply may get lost, and then the process
# asks again. If the process ends, another one takes it over. Nobody is given a duty before the earlier one of its key
# is confirmed, so joined and left are called in turn, whichever processes call them:
# f: the coming, "" if no process has it. No process is told of the leaving before that of another process is done.
# g: the leaving. A key with it has left, unless it has f, too: then it has come again.
# b: the coming that is told just before this leaving. l: the info of the leaving, if the key has come again.
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
local function owes(process, duty)
  return duty and string.sub(duty, 1, #process + 1) == process .. ':'
end
local function waits(process, entry)
  return entry.g or entry.f and entry.f ~= '' and not owes(process, entry.f)
end
local function go(key, entry, duty)
  entry.g, entry.b, entry.f = duty, entry.f, nil
  save(key, entry)
  return entry.i, duty, entry.b or false
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

#: Add a connection. Returns 1 if this process owes the call of joined for it, 2 if that is not decided yet, otherwise
#: 0; and 1 if this process is known. Asked again with the same token, it returns the same. The token is empty if the
#: callbacks know of the connection, and have not been told that its key has left. If others have removed this process
#: meanwhile, it does nothing then.
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
local came = not entry or entry.g and not entry.f and entry.n == 0
if came then
  local before = entry or {}
  entry = {n = 0, f = '', o = redis.call('HINCRBY', hash, 'order', 1), g = before.g, b = before.b, l = before.i}
end
if redis.call('HSET', hash, field, grace .. ':' .. key) == 1 or came then
  entry.n = entry.n + 1
end
if entry.f == '' and not (call and entry.g) or not call and owes(process, entry.f) then
  entry.f = call or nil
end
entry.i, entry.w, entry.d = info, process, 0
save(key, entry)
local due = 0
if call and entry.f == call then
  due = 1
elseif call and entry.f and not owes(process, entry.f) then
  due = 2
end
return {due, known}
""",
    grows=True,
)

#: Remove a connection. Returns 1 if this process owes the call of joined with this token, otherwise 0; and the info if
#: the key has left, "" if it leaves after its grace, 1 if it is to be asked again later, otherwise nil. If the key has
#: left, the duty to tell that follows, and that of the coming to be told before, or nil. After Redis was away, END
#: says when it leaves.
LEAVE = make_script(
    NOW,
    RUN_CLOCK,
    _PRESENCE,
    """
local process, connection, grace, key = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local call, duty = ARGV[7] ~= '' and process .. ':' .. ARGV[7], process .. ':' .. ARGV[8]
local entry = load(key)
local field = 'c:' .. process .. ':' .. connection
local came = entry and call and (entry.f == call or entry.b == call) and 1 or 0
if not entry or redis.call('HEXISTS', hash, field) == 0 then
  return {came, false}
end
if entry.n == 1 and waits(process, entry) then
  return {0, 1}
end
entry = drop(field, process)
if entry.n > 0 then
  save(key, entry)
  return {came, false}
end
if entry.f == '' then
  entry.f, came = call or nil, call and 1 or 0
end
local wait = grace
if grace == 0 then
  wait = select(2, run_clock(KEYS[2], tonumber(ARGV[9]), tonumber(ARGV[10])))
end
entry.d = now + grace
if wait > 0 then
  save(key, entry)
  return {came, ''}
end
return {came, go(key, entry, duty)}
""",
)

#: End the grace of a key, if its last connection was one of this process, or ask again for what this process owes.
#: Returns what LEAVE does if the key has left, the milliseconds until then if it is too early, otherwise nil. After
#: Redis was away, it is too early until all processes have returned, because the key may have a connection of another
#: one.
END = make_script(
    NOW,
    RUN_CLOCK,
    _PRESENCE,
    """
local process, key = ARGV[3], ARGV[4]
local _, wait = run_clock(KEYS[2], tonumber(ARGV[6]), tonumber(ARGV[7]))
local entry = load(key)
if entry and owes(process, entry.g) then
  return {entry.l or entry.i, entry.g, entry.b or false}
end
if not entry or entry.n > 0 or entry.w ~= process then
  return false
end
if waits(process, entry) then
  wait = math.max(wait, tonumber(ARGV[8]))
end
wait = math.max(wait, entry.d - now)
if wait > 0 then
  return wait
end
return {go(key, entry, process .. ':' .. ARGV[5])}
""",
)

#: The callbacks were told: end a duty. Forget a key that has left, and the hash with its last key.
CONFIRM = make_script(
    NOW,
    _PRESENCE,
    """
local key, duty = ARGV[3], ARGV[4]
local entry = load(key)
if not entry then
  return 1
end
if entry.f == duty then
  entry.f = nil
elseif entry.b == duty then
  entry.b = nil
elseif entry.g == duty then
  entry.g, entry.b, entry.l = nil, nil, nil
  if entry.n == 0 and not entry.f then
    redis.call('HDEL', hash, 'k:' .. key)
    if redis.call('HLEN', hash) == 1 and redis.call('HEXISTS', hash, 'order') == 1 then
      redis.call('DEL', hash)
    end
    return 1
  end
else
  return 1
end
save(key, entry)
return 1
""",
)

#: Go through a part of a room, from a cursor on. Remove the connections of a process that has ended. Its keys without
#: a connection belong to this process then, and so do the leavings that it owes. Of the comings that it owes, no
#: process has the duty. A process can also go through a room for itself. Returns the next cursor, which is 0 at the
#: end; the keys that now belong to this process, each followed by the milliseconds until it leaves; and the process's
#: own connections, each followed by its grace and its key; and the keys of whose coming it owes the call, each
#: followed by the duty. Returns nil if the process has renewed its lease. It may come back later, and learns then that
#: its connections were removed.
#
# Redis does nothing else meanwhile, and a room may have any number of keys. A small hash has a single part.
BURY = make_script(
    NOW,
    _PRESENCE,
    LIVES,
    """
local dead, own, room, duty = ARGV[3], ARGV[4], ARGV[5], ARGV[4] .. ':' .. ARGV[7]
if dead ~= own and lives(KEYS[3], KEYS[4], dead) then
  return false
end
local prefix, left, stays, owed = 'c:' .. dead .. ':', {}, {}, {}
local function take(key, entry)
  if entry.n == 0 then
    entry.w = own
  end
  save(key, entry)
  left[#left + 1] = key
  left[#left + 1] = entry.g and 0 or math.max(entry.d - now, 0)
end
local function take_key(key, entry)
  local takes = entry.n == 0 and entry.w == dead or owes(dead, entry.g)
  if dead == own then
    if owes(own, entry.f) then
      owed[#owed + 1] = key
      owed[#owed + 1] = entry.f
    end
  else
    local frees = owes(dead, entry.f)
    if frees then
      entry.f = ''
    end
    if owes(dead, entry.g) then
      entry.g, entry.b = duty, entry.b and ''
    end
    if frees and not takes then
      save(key, entry)
    end
  end
  if takes then
    take(key, entry)
  end
end
local cursor, fields = unpack(redis.call('HSCAN', hash, ARGV[6], 'COUNT', 200))
for number = 1, #fields, 2 do
  local field = fields[number]
  if string.sub(field, 1, 2) == 'k:' then
    local key = string.sub(field, 3)
    local entry = load(key)
    if entry then
      take_key(key, entry)
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
return {cursor, left, stays, owed}
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
