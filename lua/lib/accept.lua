-- Takes a command in for good: record, queue, audit entry, and a word to the workers.

-- A cancel outranks the pauses and resumes that wait. One that was ever claimed is left to the workers, told by
-- `cancel`: it is being carried out, or its worker died or put it back, and it may be in SQL already.
local function supersede(keys, c, now_ms)
  local held = redis.call('HMGET', keys.state, 'command', 'until', 'not_before')
  local claimed = held[1]
  for _, id in ipairs(redis.call('LRANGE', keys.queue, '0', '-1')) do
    local waiting = id ~= claimed and decode_stored_command(redis.call('HGET', keys.commands, id))
    if waiting and waiting.action ~= 'cancel' then
      local ended = ended_by_script(waiting, 'failed', 'superseded', c.control, now_ms)
      ended.failed = nil -- Nobody will want to ask again for what the cancel has made void.
      end_command(keys, id, ended, c.resource, now_ms)
    end
  end
  if claimed and not (held[2] and tonumber(held[2]) > now_ms) then
    -- Nobody has it now: it need not wait for its next try to give way. The mark stays: whoever put it back must not
    -- take it again by a late renewal.
    if held[3] then redis.call('HSET', keys.state, 'not_before', int_to_string(now_ms)) end
    ready_at(keys.ready, keys.tenants, c.resource, now_ms)
  end
  redis.call('HSET', keys.state, 'cancel', c.command)
  redis.call('EXPIRE', keys.state, RESOURCE_SECONDS)
end

-- c: command, action, resource, record (open), control and host (as control_of gives them), control_channel, control_message
-- workers: how many are online, as text
local function accept(keys, c, workers, now_ms)
  -- Neither list nor hash ever expires: an accepted command waits until it has a result. Both are gone when empty.
  redis.call('HSET', keys.commands, c.command, encode_stored_command(c.record, now_ms, tonumber(workers)))
  redis.call('RPUSH', keys.queue, c.command)
  redis.call('INCR', keys.backlog)
  ready_if_absent(keys.ready, keys.tenants, c.resource, now_ms)
  redis.call('XADD', keys.audit, '*', 'event', 'accepted', 'at', int_to_string(now_ms), 'entry', close_record(c.record))
  if c.action == 'cancel' then supersede(keys, c, now_ms) end
  publish_control(c.control_channel, c.control_message)
  wake_host(c.host, tonumber(workers), c.resource)
end

-- Workers alive for a tenant, as text. An entry further ahead than a heartbeat can be was written by a clock that has been
-- set back since.
local function workers_online(workers, tenant_workers, now_ms)
  local from, to = int_to_string(now_ms), int_to_string(now_ms + MAX_AHEAD_MS)
  return int_to_string(redis.call('ZCOUNT', workers, from, to) + redis.call('ZCOUNT', tenant_workers, from, to))
end
