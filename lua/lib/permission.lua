-- What the cache says of one permission: the permission itself and the two patterns that grant it.

-- true, false, or nil: nothing that may be believed is cached.
-- min_version: the minimum version, where there is one.
-- Redis forgets the entry a few seconds after it was filled, by a clock that may be set back meanwhile: an entry that
-- was filled later than now is not believed, or a right that was taken away by plain SQL would last as long as the step.
local function is_permitted(permissions, min_version, exact, area, all, now_ms)
  local cached = redis.call('HMGET', permissions, '@version', exact, area, all, '@filled')
  if not cached[1] then return nil end
  if cached[5] and tonumber(cached[5]) > now_ms then return nil end
  if min_version and tonumber(cached[1]) < tonumber(min_version) then return nil end
  return (cached[2] or cached[3] or cached[4]) and true or false
end
