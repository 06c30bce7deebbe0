-- What the cache says of one permission: the permission itself and the two patterns that grant it.

-- true, false, or nil: nothing that may be believed is cached.
-- lowest: the floor, where there is one.
local function held(permissions, lowest, exact, area, all)
  local cached = redis.call('HMGET', permissions, '@version', exact, area, all)
  if not cached[1] then return nil end
  if lowest and tonumber(cached[1]) < tonumber(lowest) then return nil end
  return (cached[2] or cached[3] or cached[4]) and true or false
end
