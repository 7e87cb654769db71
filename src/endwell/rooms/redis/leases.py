"""The Lua scripts of the leases of processes: see :mod:`.scripts`. Leases have a clock of their own."""

from __future__ import annotations

from .script import NOW, make_script

__all__ = ["FORGET", "LEASE", "LIVES", "RESERVE", "RUN_CLOCK"]

# The clock of the leases. Between two calls, it runs for an interval of renewals at most. So it stands still while
# Redis does not run or cannot be reached, or all processes stand still. Otherwise, the first process that is back
# would take all others for dead. A step of the server's clock cannot end leases, or make them last, either. The hash
# has the server's time of the last call (t), its run id (i), the time of this clock then (s), and until when processes
# may not have returned (r), by this clock. They have the time of a lease without the two intervals that it has lost at
# most. All of them have to connect again after a restart, and when a replica has taken over, however short that was.
#: Part of a script, which defines ``run_clock(key, ms, interval)`` with the time of a lease. Returns the time, and the
#: milliseconds until all processes have returned.
RUN_CLOCK = """
local function run_clock(key, ms, interval)
  local found = redis.call('HMGET', key, 't', 's', 'r', 'i')
  local gap, clock, back = now - tonumber(found[1] or now), tonumber(found[2] or now), tonumber(found[3] or 0)
  clock = clock + math.max(0, math.min(gap, interval))
  if gap > 0.3 * ms or (found[4] or ARGV[1]) ~= ARGV[1] then
    back = clock + ms - 2 * interval
  end
  redis.call('HSET', key, 't', string.format('%.0f', now), 's', string.format('%.0f', clock),
    'r', string.format('%.0f', back), 'i', ARGV[1])
  return clock, math.max(back - clock, 0)
end
"""

#: Part of a script: whether a process has renewed its lease. One without a lease was forgotten.
LIVES = """
local function lives(leases, clock, process)
  local lease = redis.call('ZSCORE', leases, process)
  return lease and tonumber(lease) > tonumber(redis.call('HGET', clock, 's') or 0)
end
"""

#: Renew the lease of this process. Returns 1 if it was known, a value that changes when others have removed its
#: connections because the lease had ended, otherwise nil, and the processes whose lease has ended.
LEASE = make_script(
    NOW,
    RUN_CLOCK,
    """
local own, ms = ARGV[3], tonumber(ARGV[4])
local clock = run_clock(KEYS[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
local known = redis.call('ZSCORE', KEYS[1], own) and 1 or 0
redis.call('ZADD', KEYS[1], string.format('%.0f', clock + ms), own)
redis.call('PEXPIRE', KEYS[2], 86400000)
local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', clock))
return {known, redis.call('GET', KEYS[3]), ended}
""",
)

#: Forget a process that has ended and is in no room any more. Otherwise, the next renewal of a lease names it again.
FORGET = make_script(
    LIVES,
    """
local dead = ARGV[3]
if redis.call('SCARD', KEYS[3]) == 0 and not lives(KEYS[1], KEYS[2], dead) then
  redis.call('ZREM', KEYS[1], dead)
end
return 1
""",
)

# The hash has a field for each process: how many connections it has, and until when that is true, by the clock of
# the leases.
#
#: Say how many connections this process has, and ask for more. Returns how many it may have in addition, and how
#: many all processes have then. Those whose time has ended are not counted.
RESERVE = make_script(
    NOW,
    RUN_CLOCK,
    """
local own, held, wanted, limit, ms = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local clock = run_clock(KEYS[2], ms, tonumber(ARGV[8]))
local total, fields = held, redis.call('HGETALL', KEYS[1])
for number = 1, #fields, 2 do
  if fields[number] ~= own then
    local count, due = string.match(fields[number + 1], '^(%d+):(%d+)$')
    if tonumber(due) > clock then
      total = total + tonumber(count)
    else
      redis.call('HDEL', KEYS[1], fields[number])
    end
  end
end
local granted = math.max(0, math.min(wanted, limit - total))
if held + granted > 0 then
  redis.call('HSET', KEYS[1], own, string.format('%.0f:%.0f', held + granted, clock + ms))
else
  redis.call('HDEL', KEYS[1], own)
end
redis.call('PEXPIRE', KEYS[1], 86400000)
return {granted, total + granted}
""",
)
