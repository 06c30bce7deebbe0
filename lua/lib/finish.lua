-- Ends a command for good: its result, its audit entry, its message to everyone who watches.
-- The audit entry has its own time: while the clock is behind the stream's newest id (it was set back), Redis goes on
-- from that id, and the ids of all entries would show the time before the step.
-- Failures that were kept before the clock was set back count as the newest until it has caught up.
-- `keys` as command_keys gives them.

local MAX_RESULTS = 1000
local RESULT_SECONDS = '86400'
local RESOURCE_SECONDS = '604800'
local MAX_FAILED = 1000
local FAILED_SECONDS = 604800

-- The result message and its publication. `workers` is what the ack said: it travels along, for a sender who
-- lost the ack and asks again.
local function record_result(keys, command, workers, message, reply_channel, now_ms)
  redis.call('HSET', keys.results, command, int_to_string(now_ms) .. '|' .. workers .. '|' .. message)
  if redis.call('LPUSH', keys.finished, command) > MAX_RESULTS then
    redis.call('HDEL', keys.results, unpack(redis.call('LRANGE', keys.finished, MAX_RESULTS, -1)))
    redis.call('LTRIM', keys.finished, 0, MAX_RESULTS - 1)
  end
  redis.call('EXPIRE', keys.results, RESULT_SECONDS)
  redis.call('EXPIRE', keys.finished, RESULT_SECONDS)
  -- pcall: it only wakes, and what is written above stands, whatever this user may publish.
  redis.pcall('PUBLISH', reply_channel, message)
end

-- What failed for good is kept for whoever wants to look at it and ask again.
local function store_failed(keys, command, event, resource, message, record, now_ms)
  redis.call('HSET', keys.failed, command,
    int_to_string(now_ms) .. '|' .. event .. '|' .. resource .. '|' .. message .. '\n' .. record)
  redis.call('ZADD', keys.failed_at, now_ms, command)
  local old = redis.call('ZRANGE', keys.failed_at, 0, -MAX_FAILED - 1)
  if #old > 0 then
    redis.call('HDEL', keys.failed, unpack(old))
    redis.call('ZREM', keys.failed_at, unpack(old))
  end
  redis.call('EXPIRE', keys.failed, FAILED_SECONDS)
  redis.call('EXPIRE', keys.failed_at, FAILED_SECONDS)
end

-- The command must be in the queue. Does not touch the lease: the caller knows whose it is.
-- `record`: as it stands among the commands. `resource_if_stored`: the resource, where a failure is to be kept; nil for one that nobody will want again.
local function end_command(keys, command, record, event, message, audit, reply_channel, now_ms, resource_if_stored)
  local workers, text = string.match(record, '^%d+|(%d+)|(.*)$')
  redis.call('LREM', keys.queue, '1', command)
  redis.call('HDEL', keys.commands, command)
  if redis.call('DECR', keys.backlog) <= 0 then
    redis.call('DEL', keys.backlog)
  end
  if resource_if_stored then store_failed(keys, command, event, resource_if_stored, message, text or '', now_ms) end
  redis.call('XADD', keys.audit, '*', 'event', event, 'at', int_to_string(now_ms), 'entry', audit)
  record_result(keys, command, workers or '0', message, reply_channel, now_ms)
end
