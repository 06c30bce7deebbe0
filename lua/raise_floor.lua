#!lua
-- A user's permissions changed: nothing older than this version is believed in this partition.
--
-- KEYS: 1 floor
-- ARGV: 1 version
-- Returns: the floor
-- Safe to repeat: it only rises. It need outlive no more than the slowest reader of SQL, who gives up
-- after a second.

local floor = math.max(tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[1]) or '0'))
redis.call('SET', KEYS[1], whole(floor), 'EX', 60)
return whole(floor)
