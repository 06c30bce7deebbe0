#!lua
-- Gives the oldest waiting command of one resource to one worker, with a fence and a lease.
--
-- KEYS: 1 state, 2 queue, 3 commands, 4 ready, 5 tenants, 6 workers, 7 tenant_workers, 8 backlog
-- ARGV: 1 worker, 2 lease (ms), 3 resource (tenant:kind:id)
-- Returns: {'command', id, value (as it stands among the commands), attempt, fence, now_ms, a cancel that waits behind it
--           ('' for none)}
--          | {'nothing'} | {'not_ready'} | {'hosted', worker}
--          | {'corrupt', id} (its record is gone or unreadable: it has been taken out of the queue)
--          | an error: its keys hold what they should not; it is quarantined for half a minute
-- Safe to repeat: a second claim while the lease runs gives 'not_ready', to the holder too; the lease's end frees it.
-- When the clock is set forwards: leases and retries end early, and a claim may be given to another worker while the
-- first still works; its fence is older then, so nothing that it writes counts. Backwards: a lease that ends further
-- ahead than it is long lasts one lease from now on (a live holder renews it within that time), a retry further ahead
-- than any delay is due, a host's heartbeat further ahead than any lasts says nothing, and to the caller a command accepted
-- later than now counts as accepted now. The fence is the greater of the clock and one more than the last: it never goes back.

local state_key, queue, commands, ready, tenants, workers, tenant_workers, backlog = unpack(KEYS)
local worker, lease_ms, resource = unpack(ARGV)
-- The longest that `command.lease_seconds` may be: for a claim by a version that did not keep the length of its lease.
local UNKNOWN_LEASE_MS = '600000'

local function claim()
  local now = now_us()
  local now_ms = math.floor(now / 1000)
  local lease = tonumber(lease_ms)

  local command = redis.call('LINDEX', queue, '0')
  if not command then
    redis.call('ZREM', ready, resource)
    return { 'nothing' }
  end

  local state = redis.call('HMGET', state_key, 'command', 'until', 'attempts', 'fence', 'host', 'not_before', 'cancel', 'lease')
  local held_until, not_before = tonumber(state[2] or '0'), tonumber(state[6] or '0')
  if held_until > now_ms then
    local longest = now_ms + tonumber(state[8] or UNKNOWN_LEASE_MS)
    if held_until > longest then
      redis.call('HSET', state_key, 'until', int_to_string(longest))
      ready_at(ready, tenants, resource, longest)
    end
    return { 'not_ready' }
  end
  if not_before > now_ms and not_before <= now_ms + MAX_AHEAD_MS then return { 'not_ready' } end

  local host = state[5]
  if host and host ~= worker then
    local alive = redis.call('ZSCORE', workers, host) or redis.call('ZSCORE', tenant_workers, host)
    if alive and tonumber(alive) > now_ms and tonumber(alive) <= now_ms + MAX_AHEAD_MS then
      -- Its host hears the wake-up, or learns of the command when it renews its run. Whoever has published the wake-up may be of a
      -- version that does not wake a host by its own channel.
      wake_host(host, redis.call('ZCARD', workers) + redis.call('ZCARD', tenant_workers), resource)
      ready_at(ready, tenants, resource, now_ms + 1000)
      return { 'hosted', host }
    end
  end

  local attempt = 1
  if state[1] == command then attempt = tonumber(state[3] or '0') + 1 end
  local value = redis.call('HGET', commands, command)

  -- Records and queue are written together: somebody else removed this one or wrote over it, and nobody can answer it.
  -- Those behind it must not wait for it for ever. Not looked into at the first try, for that costs: whoever cannot
  -- read it leaves it to a second one.
  if not value or (attempt > 1 and not decode_stored_command(value)) then
    redis.call('LPOP', queue)
    redis.call('HDEL', commands, command)
    if redis.call('DECR', backlog) <= 0 then redis.call('DEL', backlog) end
    return { 'corrupt', command }
  end

  -- µs of the clock, so that it grows even if Redis lost its data and the rows in SQL remember an older one.
  local fence = math.max(tonumber(state[4] or '0') + 1, now)
  redis.call('HSET', state_key, 'command', command, 'holder', worker, 'until', int_to_string(now_ms + lease), 'lease', lease_ms,
    'attempts', int_to_string(attempt), 'fence', int_to_string(fence))
  redis.call('HDEL', state_key, 'not_before')
  ready_at(ready, tenants, resource, now_ms + lease)
  redis.call('EXPIRE', state_key, '604800')
  local cancel = state[7] and state[7] ~= command and state[7] or ''
  return { 'command', command, value, int_to_string(attempt), int_to_string(fence), int_to_string(now_ms), cancel }
end

return or_quarantine(ready, tenants, resource, claim)
