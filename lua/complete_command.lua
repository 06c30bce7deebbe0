#!lua
-- Records the one result of a claimed command, tells everyone, and frees the resource for the next.
--
-- KEYS: 1-11 of the resource's commands (lib/command_keys.lua)
-- ARGV: 1 command, 2 fence, 3 event (succeeded, failed, expired), 4 result message, 5 result record, open,
--       6 audit entry, open, 7 failed command, open ('' where nobody will want to ask for it again),
--       8 resource (tenant:kind:id), 9 accepted_ms, 10 workers online at the acceptance,
--       11 channel and 12 message (open) of an update that is to be heard before the result, '' and '' for none
-- Returns: 'more' (another command waits) | 'done' | 'lost'
-- Safe to repeat: a command that this same claim ended before is 'done' again, without a second message.
-- When the clock is set: nothing here compares times; who holds the claim is decided by its fence, which only grows. The
-- latency in the audit entry is wrong by a step forwards, and 0 instead of a negative number after one backwards.

local command, fence, event, message, result, audit, failed, resource, accepted_ms, workers, update_channel, update =
  unpack(ARGV)
local keys = command_keys(1, 6)
local state = redis.call('HMGET', keys.state, 'command', 'fence', 'ended', 'cancel', 'attempts')
if state[3] == command .. '|' .. fence then
  if redis.call('LLEN', keys.queue) > 0 then return 'more' end
  return 'done'
end
if state[1] ~= command or state[2] ~= fence then return 'lost' end
if redis.call('HEXISTS', keys.commands, command) == 0 then return 'lost' end

local now_ms = math.floor(now_us() / 1000)
if update ~= '' then publish_update(keys.state, update_channel, update) end
local attempts, latency_ms = tonumber(state[5] or '1'), math.max(0, now_ms - tonumber(accepted_ms))
end_command(keys, command, {
  event = event, message = message, workers = workers,
  result = close_record(result, 'ended_at', now_ms, 'workers_online', tonumber(workers)),
  audit = close_record(audit, 'attempts', attempts, 'latency_ms', latency_ms),
  failed = failed ~= '' and close_record(failed, 'failed_at', now_ms) or nil,
}, resource, now_ms)
redis.call('HDEL', keys.state, 'command', 'holder', 'until', 'lease', 'attempts', 'desired', 'not_before')
redis.call('HSET', keys.state, 'ended', command .. '|' .. fence)
if state[4] == command then redis.call('HDEL', keys.state, 'cancel') end
if redis.call('LLEN', keys.queue) > 0 then
  ready_at(keys.ready, keys.tenants, resource, now_ms)
  return 'more'
end
redis.call('ZREM', keys.ready, resource)
return 'done'
