#!lua
-- Makes a claim last another lease, and tells whether a cancel waits behind it.
--
-- KEYS: 1 state, 2 ready, 3 tenants
-- ARGV: 1 command, 2 fence, 3 lease (ms), 4 resource
-- Returns: 'held' | 'cancel' (held, and a cancel waits) | 'lost'
-- Safe to repeat: it only moves the end of the lease.
-- When the clock is set: forwards, the lease may end before this comes, and the claim is lost if another worker was
-- faster. Backwards, it puts the end of the lease right.

local state_key, ready, tenants = unpack(KEYS)
local command, fence, lease_ms, resource = unpack(ARGV)
local state = redis.call('HMGET', state_key, 'command', 'fence', 'cancel', 'not_before')
-- A renewal that was under way when the claim was given back must not take it again.
if state[1] ~= command or state[2] ~= fence or state[4] then return 'lost' end
local now_ms = math.floor(now_us() / 1000)
redis.call('HSET', state_key, 'until', int_to_string(now_ms + tonumber(lease_ms)), 'lease', lease_ms)
ready_at(ready, tenants, resource, now_ms + tonumber(lease_ms))
if state[3] and state[3] ~= command then return 'cancel' end
return 'held'
