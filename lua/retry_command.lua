#!lua
-- Gives a claimed command back, to be claimed by anyone after a delay. It stays the resource's first.
--
-- KEYS: 1 state, 2 ready, 3 tenants
-- ARGV: 1 command, 2 fence, 3 delay (ms), 4 resource
-- Returns: 1 | 0 (the claim was lost)
-- Safe to repeat: the second time the lease is gone already and only the time moves.
-- When the clock is set: forwards, it is tried again early. Backwards, claim_command sees that the time lies further
-- ahead than any delay, and takes it as come.

local state_key, ready, tenants = unpack(KEYS)
local command, fence, delay_ms, resource = unpack(ARGV)
local state = redis.call('HMGET', state_key, 'command', 'fence')
if state[1] ~= command or state[2] ~= fence then return 0 end
local at = math.floor(now_us() / 1000) + tonumber(delay_ms)
redis.call('HDEL', state_key, 'until', 'lease', 'holder')
redis.call('HSET', state_key, 'not_before', int_to_string(at))
ready_at(ready, tenants, resource, at)
return 1
