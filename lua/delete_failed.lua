#!lua
-- Forgets failed commands that were kept.
--
-- KEYS: 1 failed, 2 failed_at
-- ARGV: command ids
-- Returns: how many there were
-- Safe to repeat: what is gone is gone. It has no times.

local dropped = redis.call('HDEL', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
return dropped
