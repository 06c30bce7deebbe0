-- Ends a command for good: its result, its audit entry, its message to everyone who watches.
-- Keys of one resource, as in the scripts that use it.

local RESULTS_KEPT = 1000
local RESULT_SECONDS = 86400
local RESOURCE_SECONDS = 604800

-- keys: state, queue, commands, results, finished, ready, backlog, audit
-- The command must be in the queue. Does not touch the lease: the caller knows whose it is.
local function finish(keys, command, event, message, audit, reply_channel, now_ms)
  local record = redis.call('HGET', keys.commands, command)
  -- What its ack said travels along, for a sender who lost the ack and asks again.
  local workers = record and string.match(record, '^%d+|(%d+)|') or '0'
  redis.call('LREM', keys.queue, 1, command)
  redis.call('HDEL', keys.commands, command)
  if redis.call('DECR', keys.backlog) <= 0 then
    redis.call('DEL', keys.backlog)
  end
  redis.call('HSET', keys.results, command, whole(now_ms) .. '|' .. workers .. '|' .. message)
  redis.call('LPUSH', keys.finished, command)
  local old = redis.call('LRANGE', keys.finished, RESULTS_KEPT, -1)
  if #old > 0 then
    redis.call('HDEL', keys.results, unpack(old))
    redis.call('LTRIM', keys.finished, 0, RESULTS_KEPT - 1)
  end
  redis.call('EXPIRE', keys.results, RESULT_SECONDS)
  redis.call('EXPIRE', keys.finished, RESULT_SECONDS)
  redis.call('XADD', keys.audit, '*', 'event', event, 'entry', audit)
  redis.call('PUBLISH', reply_channel, message)
end
