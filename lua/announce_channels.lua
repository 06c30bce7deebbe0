#!lua
-- A program of a cluster says which channels it publishes on and which it hears, and learns what the others have said.
--
-- KEYS: 1 channels in use, of the whole cluster
-- ARGV: 1 what the program says, `published|heard`, 2 for how long it counts (ms)
-- Returns: everything that counts, its own with it
-- Safe to repeat: it only moves the end.
-- When the clock is set forwards: what the others have said ends until they say it again. Backwards: what lies further ahead than is
-- ever written is taken out, and those who said it say it again.

local channels = KEYS[1]
local own, ttl_ms = unpack(ARGV)
local now_ms = math.floor(now_us() / 1000)
local ends = int_to_string(now_ms + tonumber(ttl_ms))
redis.call('ZREMRANGEBYSCORE', channels, '-inf', '(' .. int_to_string(now_ms))
redis.call('ZREMRANGEBYSCORE', channels, '(' .. ends, '+inf')
redis.call('ZADD', channels, ends, own)
return redis.call('ZRANGE', channels, 0, -1)
