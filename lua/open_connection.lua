#!lua
-- Takes a lease for one socket, if the tenant and the user may have one more.
--
-- KEYS: 1 connections, 2 user_connections
-- ARGV: 1 lease id, 2 limit of the tenant, 3 limit of the user, 4 ttl (ms)
-- Returns: 'open' | 'tenant' | 'user' (which limit is full)
-- Safe to repeat: the same id is one lease. Leases of a gateway that crashed end by themselves.
-- When the clock is set forwards: leases end early, and the limits count too few until gateways have renewed theirs
-- (20 s). Backwards: a lease further ahead than any lasts gets one lease's time from now on; those of open sockets are
-- renewed within it, and those of a gateway that crashed do not fill the limits for as long as the step.

local connections, user_connections = unpack(KEYS)
local lease, tenant_limit, user_limit, ttl_ms = unpack(ARGV)
local now_ms = math.floor(now_us() / 1000)
local ends = now_ms + tonumber(ttl_ms)
for i = 1, 2 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. int_to_string(now_ms + MAX_AHEAD_MS), '+inf')) do
    redis.call('ZADD', KEYS[i], ends, id)
  end
end
if not redis.call('ZSCORE', connections, lease) then
  if redis.call('ZCARD', connections) >= tonumber(tenant_limit) then return 'tenant' end
  if redis.call('ZCARD', user_connections) >= tonumber(user_limit) then return 'user' end
end
redis.call('ZADD', connections, ends, lease)
redis.call('ZADD', user_connections, ends, lease)
for i = 1, 2 do
  -- The set lives as long as its longest lease.
  redis.call('PEXPIRE', KEYS[i], math.max(tonumber(ttl_ms), math.min(redis.call('PTTL', KEYS[i]), MAX_AHEAD_MS)))
end
return 'open'
