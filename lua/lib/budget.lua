-- The exact sliding window over a user's commands: a list of the times of those that used budget, newest first.

local WINDOW_US = 60000000
-- A second more than the window, in ms: a list that went a moment early would let too many through too soon.
local KEPT_MS = '61000'

-- Whole seconds until so many more commands would be accepted; nil: they are now.
local function budget_wait(rate, limit, cost, now)
  if cost > limit then return 60 end
  local oldest = redis.call('LINDEX', rate, whole(limit - cost))
  local left = oldest and tonumber(oldest) + WINDOW_US - now or 0
  if left <= 0 then return nil end
  return math.max(1, math.min(60, math.ceil(left / 1000000)))
end

local function use_budget(rate, limit, cost, now)
  local at, known = whole(now), 0
  for _ = 1, cost do known = redis.call('LPUSH', rate, at) end
  if known > limit then redis.call('LTRIM', rate, '0', whole(limit - 1)) end
  redis.call('PEXPIRE', rate, KEPT_MS)
end
