#!lua
-- A worker hosts these runs (at their start and each second after), and says of some of them how far they are: each such update is
-- numbered, kept and published. All of them are of one partition. It learns how many commands wait for each.
--
-- KEYS: the state of each run, and then the queue of each; without the queues nothing is learned of commands
-- ARGV: 1 worker, then for each run: run, '1' where its state is to be kept for another week, channel ('' where there is no
--       update), message, open, progress (JSON; '' where the message is about its status: no command is on its way to another one), fence
--       of the row that has this status ('' for a progress)
-- Returns: for each run: how many commands wait | -1 a newer run is known, or this one was ended; nothing was done | -2 it is hosted, and its
--          status was not told, since a command has been claimed after the row was read, and may have been told already | the error, as
--          a text: the others do not suffer from it. Without queues 0 where a run is still hosted
-- Safe to repeat: the run's number decides; a run that Redis forgot is taken up again, and an update is numbered and published once
-- more, with the same content.
-- When the clock is set: the run's number decides, not a time. A step forwards of a week lets Redis forget the state
-- (the next call brings host and run back, and the numbers begin again); a step backwards lets it remember longer.

local worker = ARGV[1]
local runs = (#ARGV - 1) / 6
local has_queues = #KEYS > runs

-- Four times a second for each run of a worker: as few commands as there can be.
local function update(n)
  local state_key, at = KEYS[n], 6 * n - 4
  local run_text, keep, channel = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local state = redis.call('HMGET', state_key, 'host', 'run', 'run_ended', 'seq', 'fence')
  local run = tonumber(run_text)
  if state[2] and tonumber(state[2]) > run then return -1 end
  if state[3] and tonumber(state[3]) >= run then return -1 end
  local is_new = state[1] ~= worker or state[2] ~= run_text
  if is_new then
    -- Progress of the run before must not be taken for this one's.
    redis.call('HDEL', state_key, 'live')
    redis.call('HSET', state_key, 'host', worker, 'run', run_text)
  end
  if is_new or keep == '1' then redis.call('EXPIRE', state_key, '604800') end
  local fence = ARGV[at + 5]
  if fence ~= '' and (tonumber(state[5]) or 0) > tonumber(fence) then return -2 end
  if channel ~= '' then
    local seq = int_to_string((tonumber(state[4]) or 0) + 1)
    local live = ARGV[at + 4]
    if live == '' then
      redis.call('HDEL', state_key, 'desired')
      redis.call('HSET', state_key, 'seq', seq)
    else
      redis.call('HSET', state_key, 'seq', seq, 'live', live)
    end
    publish_of_resource(channel, ARGV[at + 3] .. ',"seq":' .. seq .. '}')
  end
  return 0
end

local answers = {}
for n = 1, runs do
  answers[n] = answer_of(update, n)
end
-- One question for all of them: mostly no command waits for any.
if has_queues and redis.call('EXISTS', unpack(KEYS, runs + 1)) > 0 then
  for n = 1, runs do
    if answers[n] == 0 then
      answers[n] = answer_of(function() return redis.call('LLEN', KEYS[runs + n]) end)
    end
  end
end
return answers
