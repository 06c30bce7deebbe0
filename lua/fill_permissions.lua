#!lua
-- Puts what SQL says of a user into the cache, unless something newer is known.
--
-- KEYS: 1 permissions, 2 min_permission_version
-- ARGV: 1 version, 2 ttl (ms), 3… permissions and patterns held
-- Returns: 1 stored | 0 stale
-- Safe to repeat: compare-and-set by version. Deleting on revoke would not do: a reader that was slow
-- could put the old rights back. The minimum version says what may no longer be believed.
-- When the clock is set forwards: the entry expires early, and SQL is read again. Backwards: whoever reads the entry sees
-- in '@filled' that it is from a later time than now, and has it filled again.

local permissions, min_permission_version = unpack(KEYS)
local version_text, ttl_ms = unpack(ARGV)
local version = tonumber(version_text)
local min_version = tonumber(redis.call('GET', min_permission_version) or '0')
local cached = tonumber(redis.call('HGET', permissions, '@version') or '0')
if version < min_version or version < cached then return 0 end
redis.call('DEL', permissions)
for i = 3, #ARGV do redis.call('HSET', permissions, ARGV[i], '1') end
-- Last, so that a row in SQL that bears this name cannot stand in its place.
redis.call('HSET', permissions, '@version', version_text, '@filled', int_to_string(math.floor(now_us() / 1000)))
redis.call('PEXPIRE', permissions, ttl_ms)
return 1
