-- Who hears the control channels. Redis hands each message to everybody who is subscribed: to a thousand workers that takes it half a
-- millisecond for each command. So all hear while they are few; of many a few hear, and wake whoever is to act.

-- With so many workers all of them hear.
local ALL_LISTEN = 32

-- 'everyone', 'seat' (it is one of the few), or 'none'. workers: how many are alive; listeners: the seats that are taken, with
-- their ends. A seat lasts as long as a heartbeat: that of a worker that has died goes to whoever has the next heartbeat.
-- When the clock is set forwards: all seats are free, and the next heartbeats take them. Backwards: seats that end further ahead than
-- any lasts are free.
-- is_leader: it leads a partition, and finds there what those that hear have missed. So that nobody is both and all is missed with
-- one that dies, it takes a seat only where nobody has one, and does not keep it.
local function seat_of(listeners, worker, workers, seats, lasts_ms, now_ms, is_leader)
  if workers <= ALL_LISTEN then return 'everyone' end
  local now, ends = int_to_string(now_ms), int_to_string(now_ms + tonumber(lasts_ms))
  local taken = redis.call('ZRANGEBYSCORE', listeners, now, ends)
  local is_free = #taken < (is_leader and 1 or tonumber(seats))
  if not is_leader then
    for _, id in ipairs(taken) do is_free = is_free or id == worker end
  end
  if not is_free then return 'none' end
  -- Seats that have ended go when one is taken anew, and not each time that one is kept.
  if redis.call('ZADD', listeners, ends, worker) == 1 then
    redis.call('ZREMRANGEBYSCORE', listeners, '-inf', '(' .. now)
    redis.call('ZREMRANGEBYSCORE', listeners, '(' .. ends, '+inf')
  end
  redis.call('PEXPIRE', listeners, lasts_ms)
  return 'seat'
end

-- Wakes the host of a job, which may not hear the control channels. workers: how many are alive. Not where all of them are sure to
-- hear: what comes twice is looked into twice. The counts of two partitions may differ for a moment.
local function wake_host(host, workers, resource)
  if host and workers > ALL_LISTEN - 8 then publish(worker_channel(host), resource) end
end
