#!lua
-- A worker hosts a job as its n-th run (first call and every renewal alike), and learns how many commands wait.
--
-- KEYS: 1 state, 2 queue
-- ARGV: 1 worker, 2 run
-- Returns: how many commands wait | -1 a newer run is known, or this one was ended
-- Safe to repeat: the run's number decides; a run that Redis forgot is taken up again.
-- When the clock is set: the run's number decides, not a time. A step forwards of a week lets Redis forget the state
-- (the next renewal brings host and run back); a step backwards lets it remember longer.

local state_key, queue = unpack(KEYS)
local worker, run_text = unpack(ARGV)
local state = redis.call('HMGET', state_key, 'host', 'run', 'run_ended')
local run = tonumber(run_text)
if state[2] and tonumber(state[2]) > run then return -1 end
if state[3] and tonumber(state[3]) >= run then return -1 end
if state[1] ~= worker or state[2] ~= run_text then
  -- Progress of the run before must not be taken for this one's.
  redis.call('HDEL', state_key, 'live')
  redis.call('HSET', state_key, 'host', worker, 'run', run_text)
end
redis.call('EXPIRE', state_key, '604800')
return redis.call('LLEN', queue)
