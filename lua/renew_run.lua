#!lua
-- A worker hosts a job as its n-th run (first call and every renewal alike), and learns how many commands wait.
--
-- KEYS: 1 state, 2 queue
-- ARGV: 1 worker, 2 run
-- Returns: how many commands wait | -1 a newer run is known, or this one was ended
-- Safe to repeat: the run's number decides; a run that Redis forgot is taken up again.
-- When the clock is set: the run's number decides, not a time. A step forwards of a week lets Redis forget the state
-- (the next renewal brings host and run back); a step backwards lets it remember longer.

local state = redis.call('HMGET', KEYS[1], 'host', 'run', 'run_ended')
local run = tonumber(ARGV[2])
if state[2] and tonumber(state[2]) > run then return -1 end
if state[3] and tonumber(state[3]) >= run then return -1 end
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then
  -- Progress of the run before must not be taken for this one's.
  redis.call('HDEL', KEYS[1], 'live')
  redis.call('HSET', KEYS[1], 'host', ARGV[1], 'run', ARGV[2])
end
redis.call('EXPIRE', KEYS[1], '604800')
return redis.call('LLEN', KEYS[2])
