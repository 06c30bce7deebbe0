#!lua
-- What the cache says of one permission.
--
-- KEYS: 1 permissions, 2 floor
-- ARGV: 1-3 what grants it (the permission and its two patterns)
-- Returns: 1 held | 0 not held | -1 unknown
-- Safe to repeat: it reads.

local cached = redis.call('HMGET', KEYS[1], '@version', ARGV[1], ARGV[2], ARGV[3])
if not cached[1] then return -1 end
local floor = redis.call('GET', KEYS[2])
if floor and tonumber(cached[1]) < tonumber(floor) then return -1 end
if cached[2] or cached[3] or cached[4] then return 1 end
return 0
