#!lua
-- Writes the audit entries of refusals that were counted, and forgets the windows that are over (lib/refusals.lua).
--
-- KEYS: 1 refusals, 2 refusals_due, 3 audit
-- Returns: how many were looked at; as many as MAX_PER_CALL: there may be more
-- Safe to repeat: what has been written is counted anew from nothing.
-- When the clock is set forwards: they are written early. Backwards: what is due further ahead than ever is due now.

-- In one call: others wait for Redis meanwhile.
local MAX_PER_CALL = 100

local refusals, refusals_due, audit = unpack(KEYS)
local now_ms = math.floor(now_us() / 1000)

local function some_due(from, to)
  return redis.call('ZRANGEBYSCORE', refusals_due, from, to, 'LIMIT', '0', int_to_string(MAX_PER_CALL))
end

local due = some_due('-inf', int_to_string(now_ms))
if #due == 0 then due = some_due('(' .. int_to_string(now_ms + REFUSALS_WINDOW_MS), '+inf') end
for _, member in ipairs(due) do
  local kept = decode_refusals(redis.call('HGET', refusals, member))
  if kept then write_counted_refusals(audit, kept, now_ms) end
  if not kept or is_refusals_window_over(kept, now_ms) then
    redis.call('HDEL', refusals, member)
    redis.call('ZREM', refusals_due, member)
  else
    kept.counted, kept.first_at, kept.last_at, kept.entry = 0, nil, nil, nil
    redis.call('HSET', refusals, member, cjson.encode(kept))
    redis.call('ZADD', refusals_due, int_to_string(kept.since + REFUSALS_WINDOW_MS), member)
  end
end
return #due
