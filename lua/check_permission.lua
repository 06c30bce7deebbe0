#!lua
-- What the cache says of one permission.
--
-- KEYS: 1 permissions, 2 min_permission_version
-- ARGV: 1-3 what grants it (the permission and its two patterns)
-- Returns: 1 held | 0 not held | -1 unknown
-- Safe to repeat: it reads.
-- When the clock is set forwards: the cached entry expires, and SQL is read again. Backwards: an entry that was filled
-- at a later time than now is unknown.

local permissions, min_permission_version = unpack(KEYS)
local exact, area, all = unpack(ARGV)
local answer = is_permitted(permissions, redis.call('GET', min_permission_version), exact, area, all, math.floor(now_us() / 1000))
if answer == nil then return -1 end
return answer and 1 or 0
