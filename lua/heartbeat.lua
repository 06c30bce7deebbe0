#!lua
-- A worker is alive for a while longer.
--
-- KEYS: 1 workers or tenant_workers
-- ARGV: 1 worker, 2 ttl (ms)
-- Returns: the workers alive in this set, then the clock (Unix ms)
-- Safe to repeat: it only moves the end. Workers long gone are swept out here.
-- When the clock is set forwards: all others count as dead until their next heartbeat, a second later at the most.
-- Nobody is buried for that: whoever looks after dead workers wants to miss one for some seconds of its own clock.
-- Backwards: an entry further ahead than a heartbeat lasts gets one heartbeat from now on. A live worker renews it
-- within that time, and a dead one is dead after it, instead of after the whole step.

local workers = KEYS[1]
local worker, ttl_ms = unpack(ARGV)
local now_ms = math.floor(now_us() / 1000)
local lasts = now_ms + tonumber(ttl_ms)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', workers, '(' .. int_to_string(lasts), '+inf')) do
  redis.call('ZADD', workers, lasts, id)
end
redis.call('ZADD', workers, lasts, worker)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now_ms - 60000)
redis.call('PEXPIRE', workers, 120000)
local alive = redis.call('ZRANGEBYSCORE', workers, now_ms, '+inf')
alive[#alive + 1] = int_to_string(now_ms)
return alive
