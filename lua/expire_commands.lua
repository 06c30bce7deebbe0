#!lua
-- Ends the oldest commands of a resource that no worker has taken up in time.
--
-- KEYS: 1-11 of the resource's commands (lib/command_keys.lua), 12 workers, 13 tenant_workers
-- ARGV: 1 how long a command may wait (ms), 2 resource
-- Returns: the ids of those that ended | an error: its keys hold what they should not; it is quarantined for half a minute
-- Safe to repeat: what has ended is not in the queue any more. One that was ever claimed is left to the workers:
-- it may have been carried out already.
-- When the clock is set forwards: commands look older than they are, and end early by the step: those who call this add
-- the step to how long a command may wait (`broker/clock_steps.rs`). Backwards: how long a command has waited that was
-- accepted later than now is not known; it counts from now on.

local ttl_ms, resource = unpack(ARGV)
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
    local waiting = decode_stored_command(redis.call('HGET', keys.commands, command))
    if not waiting then
      postpone(now_ms) -- A worker takes out what cannot be read.
      break
    end
    if waiting.accepted_at > now_ms then
      waiting.accepted_at = now_ms
      local json = cjson.encode(waiting)
      redis.call('HSET', keys.commands, command,
        with_former_command_head(json, now_ms, int_to_string(waiting.workers_online)))
      ready_at(keys.ready, keys.tenants, resource, now_ms)
      break
    end
    if waiting.accepted_at + tonumber(ttl_ms) > now_ms then
      postpone(waiting.accepted_at) -- The older ones of this resource have ended.
      break
    end
    local control = control_of(keys.state, workers, tenant_workers, resource, now_ms)
    end_command(keys, command, ended_by_script(waiting, 'expired', 'expired', control, now_ms), resource, now_ms)
    if state[2] == command then redis.call('HDEL', keys.state, 'cancel') end
    ended[#ended + 1] = command
  end
  return ended
end

return or_quarantine(keys.ready, keys.tenants, resource, expire)
