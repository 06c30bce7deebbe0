#!lua
-- Gives a claimed command back, to be claimed by anyone after a delay. It stays the resource's first.
--
-- KEYS: 1 state, 2 ready, 3 tenants
-- ARGV: 1 command, 2 fence, 3 delay (ms), 4 resource
-- Returns: 1 | 0 (the claim was lost)
-- Safe to repeat: the second time the lease is gone already and only the time moves.
-- When the clock is set: forwards, it is tried again early. Backwards, claim_command sees that the time lies further
-- ahead than any delay, and takes it as come.

local state = redis.call('HMGET', KEYS[1], 'command', 'fence')
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return 0 end
local at = math.floor(now_us() / 1000) + tonumber(ARGV[3])
redis.call('HDEL', KEYS[1], 'until', 'lease', 'holder')
redis.call('HSET', KEYS[1], 'not_before', int_to_string(at))
ready_at(KEYS[2], KEYS[3], ARGV[4], at)
return 1
