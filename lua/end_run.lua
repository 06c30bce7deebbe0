#!lua
-- A job has left its worker: anyone may claim its commands now.
--
-- KEYS: 1 state, 2 queue, 3 ready, 4 tenants
-- ARGV: 1 run, 2 resource
-- Returns: 1 | 0 (a newer run is known; nothing was done)
-- Safe to repeat: the run's number decides.
-- When the clock is set back: a lease or a retry from before the step counts as under way here; ready_resources.lua finds it all the
-- same, and claim_command puts its time right. Forwards: it is over, and the next command may be claimed at once.

local state_key, queue, ready, tenants = unpack(KEYS)
local run_text, resource = unpack(ARGV)
local state = redis.call('HMGET', state_key, 'run', 'until', 'not_before')
local run = tonumber(run_text)
if state[1] and tonumber(state[1]) > run then return 0 end
redis.call('HDEL', state_key, 'host', 'live')
redis.call('HSET', state_key, 'run_ended', run_text)
redis.call('EXPIRE', state_key, '604800')
local now_ms = math.floor(now_us() / 1000)
local held = (state[2] and tonumber(state[2]) > now_ms) or (state[3] and tonumber(state[3]) > now_ms)
if not held and redis.call('LLEN', queue) > 0 then ready_at(ready, tenants, resource, now_ms) end
return 1
