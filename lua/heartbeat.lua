#!lua
-- A worker is alive for a while longer.
--
-- KEYS: 1 workers or tenant_workers
-- ARGV: 1 worker, 2 ttl (ms)
-- Returns: the workers alive in this set
-- Safe to repeat: it only moves the end. Workers long gone are swept out here.

local now_ms = math.floor(now_us() / 1000)
redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - 60000)
redis.call('PEXPIRE', KEYS[1], 120000)
return redis.call('ZRANGEBYSCORE', KEYS[1], now_ms, '+inf')
