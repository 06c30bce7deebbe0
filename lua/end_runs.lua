#!lua
-- These runs have left their worker: those who watch are told what has become of their jobs, and anyone may claim the jobs' commands now. All
-- of them are of one partition.
--
-- KEYS: 1 tenants, then for each run: state, queue, ready
-- ARGV: for each run: run, resource, channel ('' where nothing is to be told), message, open, fence of the row that says so ('' where no
--       command can have taken the job elsewhere since)
-- Returns: for each run: 1 | 0 (a newer run is known, or one that has ended; nothing was done) | 2 nothing was told, since a command has been
--          claimed after the row was written, and may have been told already | the error, as a text: the others do not suffer from it
-- Safe to repeat: the run's number decides. What has been told of the end of a run is not told again: its job may have gone on since.
-- When the clock is set back: a lease or a retry from before the step counts as under way here; ready_resources.lua finds it all the
-- same, and claim_command puts its time right. Forwards: it is over, and the next command may be claimed at once.

local tenants = KEYS[1]
local runs = #ARGV / 5

local function end_run(n)
  local state_key, queue, ready = unpack(KEYS, 3 * n - 1, 3 * n + 1)
  local run_text, resource, channel, message, fence = unpack(ARGV, 5 * n - 4, 5 * n)
  local state = redis.call('HMGET', state_key, 'run', 'until', 'not_before', 'seq', 'run_ended', 'fence')
  local run, ended = tonumber(run_text), tonumber(state[5]) or 0
  if (tonumber(state[1]) or 0) > run or ended > run then return 0 end
  -- The run as well: of its start this server may not have heard.
  local is_to_tell = channel ~= '' and ended ~= run
  local is_overtaken = is_to_tell and fence ~= '' and (tonumber(state[6]) or 0) > tonumber(fence)
  if is_overtaken or not is_to_tell then
    redis.call('HDEL', state_key, 'host', 'live')
    redis.call('HSET', state_key, 'run', run_text, 'run_ended', run_text)
  else
    local seq = int_to_string((tonumber(state[4]) or 0) + 1)
    redis.call('HDEL', state_key, 'host', 'live', 'desired')
    redis.call('HSET', state_key, 'run', run_text, 'run_ended', run_text, 'seq', seq)
    publish_of_resource(channel, message .. ',"seq":' .. seq .. '}')
  end
  redis.call('EXPIRE', state_key, '604800')
  local now_ms = math.floor(now_us() / 1000)
  local held = (state[2] and tonumber(state[2]) > now_ms) or (state[3] and tonumber(state[3]) > now_ms)
  if not held and redis.call('LLEN', queue) > 0 then ready_at(ready, tenants, resource, now_ms) end
  return is_overtaken and 2 or 1
end

local answers = {}
for n = 1, runs do
  answers[n] = answer_of(end_run, n)
end
return answers
