#!lua
-- Gives the oldest waiting command of one resource to one worker, with a fence and a lease.
--
-- KEYS: 1 state, 2 queue, 3 commands, 4 ready, 5 tenants, 6 workers, 7 tenant_workers, 8 backlog
-- ARGV: 1 worker, 2 lease (ms), 3 resource (tenant:kind:id)
-- Returns: {'command', id, accepted_ms, record, attempt, fence, now_ms, a cancel that waits behind it ('' for none)}
--          | {'nothing'} | {'later'} | {'hosted', worker}
--          | {'spoilt', id} (its record is gone or unreadable: it has been taken out of the queue)
--          | an error: its keys hold what they should not; it is set aside for half a minute
-- Safe to repeat: a second claim while the lease runs gives 'later', to the holder too; the lease's end frees it.

local ready, tenants = KEYS[4], KEYS[5]

local function claim()
  local now = now_us()
  local now_ms = math.floor(now / 1000)
  local worker, lease, resource = ARGV[1], tonumber(ARGV[2]), ARGV[3]

  local command = redis.call('LINDEX', KEYS[2], '0')
  if not command then
    redis.call('ZREM', ready, resource)
    return { 'nothing' }
  end

  local state = redis.call('HMGET', KEYS[1], 'command', 'until', 'attempts', 'fence', 'host', 'not_before', 'cancel')
  if state[2] and tonumber(state[2]) > now_ms then return { 'later' } end
  if state[6] and tonumber(state[6]) > now_ms then return { 'later' } end

  local host = state[5]
  if host and host ~= worker then
    local alive = redis.call('ZSCORE', KEYS[6], host) or redis.call('ZSCORE', KEYS[7], host)
    if alive and tonumber(alive) > now_ms then
      -- Its host hears the wake-up, or learns of the command when it renews its run.
      ready_at(ready, tenants, resource, now_ms + 1000)
      return { 'hosted', host }
    end
  end

  local attempt = 1
  if state[1] == command then attempt = tonumber(state[3] or '0') + 1 end
  local record = redis.call('HGET', KEYS[3], command)
  local accepted, text = string.match(record or '', '^(%d+)|%d+|(.*)$')

  -- Records and queue are written together: somebody else removed this one or wrote over it, and nobody can answer it.
  -- Those behind it must not wait for it for ever. Not looked into at the first try, for that costs: whoever cannot
  -- read it leaves it to a second one.
  if not text or (attempt > 1 and not read_record(text)) then
    redis.call('LPOP', KEYS[2])
    redis.call('HDEL', KEYS[3], command)
    if redis.call('DECR', KEYS[8]) <= 0 then redis.call('DEL', KEYS[8]) end
    return { 'spoilt', command }
  end

  -- µs of the clock, so that it grows even if Redis lost its data and the rows in SQL remember an older one.
  local fence = math.max(tonumber(state[4] or '0') + 1, now)
  redis.call('HSET', KEYS[1], 'command', command, 'holder', worker, 'until', whole(now_ms + lease),
    'attempts', whole(attempt), 'fence', whole(fence))
  redis.call('HDEL', KEYS[1], 'not_before')
  ready_at(ready, tenants, resource, now_ms + lease)
  redis.call('EXPIRE', KEYS[1], '604800')
  local cancel = state[7] and state[7] ~= command and state[7] or ''
  return { 'command', command, accepted, text, whole(attempt), whole(fence), whole(now_ms), cancel }
end

return or_set_aside(ready, tenants, ARGV[3], claim)
