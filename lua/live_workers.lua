#!lua
-- The workers alive in two sets.
--
-- KEYS: 1 workers, 2 tenant_workers
-- ARGV: none
-- Returns: their ids
-- Safe to repeat: it reads.

local now_ms = math.floor(now_us() / 1000)
local alive = redis.call('ZRANGEBYSCORE', KEYS[1], now_ms, '+inf')
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], now_ms, '+inf')) do alive[#alive + 1] = id end
return alive
