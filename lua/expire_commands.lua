#!lua
-- Ends the oldest commands of a resource that no worker has taken up in time.
--
-- KEYS: 1-11 of the resource's commands (lib/command_keys.lua), 12 workers, 13 tenant_workers
-- ARGV: 1 how long a command may wait (ms), 2 resource, 3 reply channel, 4 the words of the result
-- Returns: the ids of those that ended | an error: its keys hold what they should not; it is quarantined for half a minute
-- Safe to repeat: what has ended is not in the queue any more. One that was ever claimed is left to the workers:
-- it may have been carried out already.
-- When the clock is set forwards: commands look older than they are, and end early by the step: those who call this add
-- the step to how long a command may wait (`broker/clock_steps.rs`). Backwards: how long a command has waited that was
-- accepted later than now is not known; it counts from now on.

local ttl_ms, resource, reply_channel, error_text = unpack(ARGV)
-- In one call: others wait for Redis meanwhile.
local MAX_PER_CALL = 100

local keys = command_keys(1, 6)
local workers, tenant_workers = KEYS[12], KEYS[13]
local now_ms = math.floor(now_us() / 1000)
local ended = {}

-- What cannot end yet goes behind those that can: gateways look at the longest due only, and it would stand before the
-- others for ever. What is not due (a lease, a retry) keeps its time.
local function postpone(at)
  local due = redis.call('ZSCORE', keys.ready, resource)
  if due and tonumber(due) < at then ready_at(keys.ready, keys.tenants, resource, at) end
end

local function expire()
  while #ended < MAX_PER_CALL do
    local command = redis.call('LINDEX', keys.queue, 0)
    if not command then
      redis.call('ZREM', keys.ready, resource)
      break
    end
    local state = redis.call('HMGET', keys.state, 'command', 'cancel')
    if state[1] then
      postpone(now_ms)
      break
    end
    local record = redis.call('HGET', keys.commands, command)
    local accepted, text = string.match(record or '', '^(%d+)|%d+|(.*)$')
    local waiting = decode_stored_command(text)
    if not waiting then
      postpone(now_ms) -- A worker takes out what cannot be read.
      break
    end
    if tonumber(accepted) > now_ms then
      redis.call('HSET', keys.commands, command, int_to_string(now_ms) .. string.match(record, '^%d+(.*)$'))
      ready_at(keys.ready, keys.tenants, resource, now_ms)
      break
    end
    if tonumber(accepted) + tonumber(ttl_ms) > now_ms then
      postpone(tonumber(accepted)) -- The older ones of this resource have ended.
      break
    end
    local control = control_of(keys.state, workers, tenant_workers, resource, now_ms)
    end_command(keys, command, record, 'expired', failed_message(waiting, error_text, control),
      outcome_entry(text, error_text, accepted, now_ms), reply_channel, now_ms, resource)
    if state[2] == command then redis.call('HDEL', keys.state, 'cancel') end
    ended[#ended + 1] = command
  end
  return ended
end

return or_quarantine(keys.ready, keys.tenants, resource, expire)
