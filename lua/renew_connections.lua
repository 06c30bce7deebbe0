#!lua
-- Makes leases of one set last longer; takes again those that Redis lost.
--
-- KEYS: 1 connections or user_connections
-- ARGV: 1 ttl (ms), 2… lease ids
-- Returns: how many
-- Safe to repeat: it only moves ends.
-- When the clock is set: forwards, leases that were ended by the step are taken again here. Backwards, this puts the end
-- of every open socket right.

local ends = math.floor(now_us() / 1000) + tonumber(ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], ends, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return #ARGV - 1
