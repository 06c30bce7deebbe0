#!lua
-- The workers alive in two sets.
--
-- KEYS: 1 workers, 2 tenant_workers
-- ARGV: none
-- Returns: their ids
-- Safe to repeat: it reads.
-- When the clock is set forwards: nobody is alive until the next heartbeat. Backwards: an entry further ahead than any
-- heartbeat lasts is from before the step, and counts as dead until it is renewed.

local workers, tenant_workers = unpack(KEYS)
local now_ms = math.floor(now_us() / 1000)
local last = now_ms + MAX_AHEAD_MS
local alive = redis.call('ZRANGEBYSCORE', workers, now_ms, last)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', tenant_workers, now_ms, last)) do alive[#alive + 1] = id end
return alive
