#!lua
-- Numbers, keeps and publishes one update of a resource.
--
-- KEYS: 1 state
-- ARGV: 1 run ('' where no run sends it), 2 channel, 3 message, open, 4 progress (JSON, '' keeps what is there),
--       5 desired ('' keeps, '-' forgets)
-- Returns: its number | -1 (the run is over; nothing was done)
-- Safe to repeat: a repeat is a second update with a higher number and the same content.
-- When the clock is set: updates are numbered, not timed. A step forwards of a week lets Redis forget the state and the
-- number begins again; whoever watches reads the snapshot anew then, as after any loss of data.

local state_key = KEYS[1]
local run_text, channel, message, progress, desired = unpack(ARGV)
if run_text ~= '' then
  local state = redis.call('HMGET', state_key, 'run', 'run_ended')
  local run = tonumber(run_text)
  if state[1] and tonumber(state[1]) > run then return -1 end
  if state[2] and tonumber(state[2]) >= run then return -1 end
end
if progress ~= '' then redis.call('HSET', state_key, 'live', progress) end
if desired == '-' then
  redis.call('HDEL', state_key, 'desired')
elseif desired ~= '' then
  redis.call('HSET', state_key, 'desired', desired)
end
redis.call('EXPIRE', state_key, '604800')
return publish_update(state_key, channel, message)
