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

-- A result and its publication. result: its record; workers: what the ack said, as text.
local function record_result(keys, command, workers, result, message, reply_channel, now_ms)
  redis.call('HSET', keys.results, 'record:' .. command, result, command, former_result(workers, message, now_ms))
  if redis.call('LPUSH', keys.finished, command) > MAX_RESULTS then
    local old = {}
    for _, id in ipairs(redis.call('LRANGE', keys.finished, MAX_RESULTS, -1)) do
      old[#old + 1], old[#old + 2] = 'record:' .. id, id
    end
    redis.call('HDEL', keys.results, unpack(old))
    redis.call('LTRIM', keys.finished, 0, MAX_RESULTS - 1)
  end
  redis.call('EXPIRE', keys.results, RESULT_SECONDS)
  redis.call('EXPIRE', keys.finished, RESULT_SECONDS)
  publish_of_resource(reply_channel, message)
end

-- What failed for good is kept for whoever wants to look at it and ask again.
local function store_failed(keys, command, value, now_ms)
  redis.call('HSET', keys.failed, command, value)
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
-- ended: event, message (to be published), result, audit (records), workers (as text), and failed (a record), where
-- somebody may want to look at the failure.
local function end_command(keys, command, ended, resource, now_ms)
  local reply_channel = resource .. ':reply'
  redis.call('LREM', keys.queue, '1', command)
  redis.call('HDEL', keys.commands, command)
  if redis.call('DECR', keys.backlog) <= 0 then
    redis.call('DEL', keys.backlog)
  end
  if ended.failed then
    store_failed(keys, command, with_former_failed_head(ended.failed, ended.event, resource, ended.message, now_ms), now_ms)
  end
  redis.call('XADD', keys.audit, '*', 'event', ended.event, 'at', int_to_string(now_ms), 'entry', ended.audit)
  record_result(keys, command, ended.workers, ended.result, ended.message, reply_channel, now_ms)
end
