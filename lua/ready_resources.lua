#!lua
-- Resources of a tenant whose next command may be claimed now, or could have been for a while.
--
-- KEYS: 1 ready, 2 tenants
-- ARGV: 1 tenant, 2 limit, 3 for how long (ms, 0: from now on)
-- Returns: resources, longest waiting first
-- When the clock is set forwards: what waits for a lease or a retry is due early; claim_command looks at its own times.
-- Backwards: a resource that stands further ahead than any time that is written for it would be found only when the
-- clock has caught up. It is given, after those that are due, and claim_command or expire_commands puts its time right.
-- Safe to repeat: it reads; a tenant of whom nothing waits is taken out of the set of those to ask about.

local ready, tenants = unpack(KEYS)
local tenant, limit, waiting_ms = unpack(ARGV)
if redis.call('EXISTS', ready) == 0 then
  redis.call('SREM', tenants, tenant)
  return {}
end
local now_ms = math.floor(now_us() / 1000)
local due = redis.call('ZRANGEBYSCORE', ready, '-inf', now_ms - tonumber(waiting_ms), 'LIMIT', 0, limit)
local room = tonumber(limit) - #due
if room > 0 then
  local ahead = '(' .. int_to_string(now_ms + MAX_AHEAD_MS)
  for _, resource in ipairs(redis.call('ZRANGEBYSCORE', ready, ahead, '+inf', 'LIMIT', 0, room)) do
    due[#due + 1] = resource
  end
end
return due
