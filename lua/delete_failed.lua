#!lua
-- Forgets failed commands that were kept.
--
-- KEYS: 1 failed, 2 failed_at
-- ARGV: command ids
-- Returns: how many there were
-- Safe to repeat: what is gone is gone. It has no times.

local failed, failed_at = unpack(KEYS)
local dropped = redis.call('HDEL', failed, unpack(ARGV))
redis.call('ZREM', failed_at, unpack(ARGV))
return dropped
