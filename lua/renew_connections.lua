#!lua
-- Makes leases of one set last longer; takes again those that Redis lost.
--
-- KEYS: 1 connections or user_connections
-- ARGV: 1 ttl (ms), 2… lease ids
-- Returns: how many
-- Safe to repeat: it only moves ends.
-- When the clock is set: forwards, leases that were ended by the step are taken again here. Backwards, this puts the end
-- of every open socket right.

local connections = KEYS[1]
local ttl_ms = ARGV[1]
local ends = math.floor(now_us() / 1000) + tonumber(ttl_ms)
for i = 2, #ARGV do redis.call('ZADD', connections, ends, ARGV[i]) end
redis.call('PEXPIRE', connections, ttl_ms)
return #ARGV - 1
