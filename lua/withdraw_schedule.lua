#!lua
-- Takes a scheduled command back.
--
-- KEYS: 1 schedule, 2 schedules, 3 audit
-- ARGV: 1 command, 2 resource, 3 audit entry
-- Returns: 1 | 0 (there is none: it was withdrawn, or its time has come)
-- Safe to repeat: the second time there is none.

if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[2] .. '|' .. ARGV[1])
redis.call('XADD', KEYS[3], '*', 'event', 'withdrawn', 'entry', ARGV[3])
return 1
