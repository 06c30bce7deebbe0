#!lua
-- Scheduled commands of a partition whose time has come.
--
-- KEYS: 1 schedule
-- ARGV: 1 limit
-- Returns: members (tenant:kind:id|command), longest due first, then the time of the next one (Unix ms, '' for none)
--          and the clock (Unix ms)
-- When the clock is set: a schedule is a time of the clock that its ack named, also where it was asked for as a delay.
-- Forwards it is due early, backwards late, by the step.
-- Safe to repeat: it reads. Whoever brings one in (submit_command) takes it out.

local schedule = KEYS[1]
local limit = ARGV[1]
local now_ms = math.floor(now_us() / 1000)
local due = redis.call('ZRANGEBYSCORE', schedule, '-inf', now_ms, 'LIMIT', 0, limit)
local next = redis.call('ZRANGEBYSCORE', schedule, '(' .. int_to_string(now_ms), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
due[#due + 1] = next[2] or ''
due[#due + 1] = int_to_string(now_ms)
return due
