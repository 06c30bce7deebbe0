#!lua
-- Records the one result of a claimed command, tells everyone, and frees the resource for the next.
--
-- KEYS: 1-11 of the resource's commands (lib/command_keys.lua)
-- ARGV: 1 command, 2 fence, 3 event (succeeded, failed, expired), 4 result message,
--       5 audit entry, open, 6 reply channel, 7 resource, 8 accepted_ms, 9 keep it among the failed (0/1),
--       10 channel and 11 message (open) of an update that is to be heard before the result, '' and '' for none
-- Returns: 'more' (another command waits) | 'done' | 'lost'
-- Safe to repeat: a command that this same claim ended before is 'done' again, without a second message.
-- When the clock is set: nothing here compares times; who holds the claim is decided by its fence, which only grows. The
-- latency in the audit entry is wrong by a step forwards, and 0 instead of a negative number after one backwards.

local command, fence, event, message, audit, reply_channel, resource, accepted_ms, is_kept, update_channel, update = unpack(ARGV)
local keys = command_keys(1, 6)
local state = redis.call('HMGET', keys.state, 'command', 'fence', 'ended', 'cancel', 'attempts')
if state[3] == command .. '|' .. fence then
  if redis.call('LLEN', keys.queue) > 0 then return 'more' end
  return 'done'
end
if state[1] ~= command or state[2] ~= fence then return 'lost' end
local record = redis.call('HGET', keys.commands, command)
if not record then return 'lost' end

local now_ms = math.floor(now_us() / 1000)
if update ~= '' then publish_update(keys.state, update_channel, update) end
end_command(keys, command, record, event, message,
  audit .. ',"attempts":' .. (state[5] or '1') .. ',"latency_ms":' .. int_to_string(math.max(0, now_ms - tonumber(accepted_ms))) .. '}',
  reply_channel, now_ms, is_kept == '1' and resource or nil)
redis.call('HDEL', keys.state, 'command', 'holder', 'until', 'lease', 'attempts', 'desired', 'not_before')
redis.call('HSET', keys.state, 'ended', command .. '|' .. fence)
if state[4] == command then redis.call('HDEL', keys.state, 'cancel') end
if redis.call('LLEN', keys.queue) > 0 then
  ready_at(keys.ready, keys.tenants, resource, now_ms)
  return 'more'
end
redis.call('ZREM', keys.ready, resource)
return 'done'
