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

if ARGV[1] ~= '' then
  local state = redis.call('HMGET', KEYS[1], 'run', 'run_ended')
  local run = tonumber(ARGV[1])
  if state[1] and tonumber(state[1]) > run then return -1 end
  if state[2] and tonumber(state[2]) >= run then return -1 end
end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'live', ARGV[4]) end
if ARGV[5] == '-' then
  redis.call('HDEL', KEYS[1], 'desired')
elseif ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'desired', ARGV[5])
end
redis.call('EXPIRE', KEYS[1], '604800')
return publish_update(KEYS[1], ARGV[2], ARGV[3])
