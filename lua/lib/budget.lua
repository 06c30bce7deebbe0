-- The exact sliding window over a user's commands: a list of the times of those that used budget, newest first.

local WINDOW_US = 60000000
-- A second more than the window, in ms: a list that went a moment early would let too many through too soon.
local KEY_TTL_MS = '61000'

-- Whole seconds until so many more commands would be accepted; nil: they are now.
-- A time ahead of now is from before the clock was set back. When that command really came is not known, so it counts
-- as if it came now: the user waits for one window at the most, and never gets more than the limit through in one.
local function budget_wait(rate, limit, cost, now)
  if cost > limit then return 60 end
  local newest = redis.call('LINDEX', rate, '0')
  if newest and tonumber(newest) > now then
    for i, at in ipairs(redis.call('LRANGE', rate, '0', '-1')) do
      if tonumber(at) <= now then break end
      redis.call('LSET', rate, int_to_string(i - 1), int_to_string(now))
    end
    redis.call('PEXPIRE', rate, KEY_TTL_MS)
  end
  local oldest = redis.call('LINDEX', rate, int_to_string(limit - cost))
  local left = oldest and tonumber(oldest) + WINDOW_US - now or 0
  if left <= 0 then return nil end
  return math.max(1, math.min(60, math.ceil(left / 1000000)))
end

local function use_budget(rate, limit, cost, now)
  local at, known = int_to_string(now), 0
  for _ = 1, cost do known = redis.call('LPUSH', rate, at) end
  if known > limit then redis.call('LTRIM', rate, '0', int_to_string(limit - 1)) end
  redis.call('PEXPIRE', rate, KEY_TTL_MS)
end
