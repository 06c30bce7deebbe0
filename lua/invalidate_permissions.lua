#!lua
-- A user's permissions changed: nothing older than this version is believed in this partition.
--
-- KEYS: 1 min_permission_version
-- ARGV: 1 version
-- Returns: the version
-- Safe to repeat: it only rises. It need outlive no more than the slowest reader of SQL, who gives up
-- after a second.
-- When the clock is set forwards by a minute or more: the minimum version goes at once, and so do the cached entries that it
-- forbids; a reader who read SQL before the change and fills the cache after the step is believed for the few seconds
-- that an entry lasts. Backwards: the minimum version stays longer, which costs nothing.

local min_permission_version = KEYS[1]
local version = ARGV[1]
local min_version = math.max(tonumber(version), tonumber(redis.call('GET', min_permission_version) or '0'))
redis.call('SET', min_permission_version, int_to_string(min_version), 'EX', 60)
return int_to_string(min_version)
