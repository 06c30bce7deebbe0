#!lua
-- Numbers and publishes what a resource is by now. How far a run is, is told by update_runs.lua.
--
-- KEYS: 1 state
-- ARGV: 1 channel, 2 message, open, 3 desired ('' keeps, '-' forgets)
-- Returns: its number
-- Safe to repeat: a repeat is a second update with a higher number and the same content.
-- When the clock is set: updates are numbered, not timed. A step forwards of a week lets Redis forget the state and the
-- number begins again; whoever watches reads the snapshot anew then, as after any loss of data.

local state_key = KEYS[1]
local channel, message, desired = unpack(ARGV)
if desired == '-' then
  redis.call('HDEL', state_key, 'desired')
elseif desired ~= '' then
  redis.call('HSET', state_key, 'desired', desired)
end
redis.call('EXPIRE', state_key, '604800')
return publish_update(state_key, channel, message)
