-- The clock of every limit and lease is Redis's own, so that gateways and workers need not agree on one.

-- Unix time in µs.
local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- A whole number as text: tostring would write large ones as 1.79e+15.
local function whole(n)
  return string.format('%.0f', n)
end
