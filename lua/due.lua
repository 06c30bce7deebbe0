#!lua
-- Resources of a tenant whose next command may be claimed now, or could have been for a while.
--
-- KEYS: 1 ready, 2 tenants
-- ARGV: 1 tenant, 2 limit, 3 for how long (ms, 0: from now on)
-- Returns: resources, longest waiting first
-- Safe to repeat: it reads; a tenant of whom nothing waits is taken out of the set of those to ask about.

if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SREM', KEYS[2], ARGV[1])
  return {}
end
local until_ms = math.floor(now_us() / 1000) - tonumber(ARGV[3])
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', until_ms, 'LIMIT', 0, ARGV[2])
