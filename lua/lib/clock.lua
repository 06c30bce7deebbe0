-- The clock of every limit and lease is Redis's own, so that gateways and workers need not agree on one.

-- Unix time in µs.
local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- A whole number as text: tostring would write large ones as 1.79e+15. What Redis gets as a number it writes out by
-- itself, with all the care that fractions need: that takes ten times as long, so the hot scripts give it text.
local function whole(n)
  return string.format('%d', n)
end

-- For so long a sender may ask again after a lost answer.
local LOST_ANSWER_SECONDS = '10'

-- What a script that is sent again after a lost answer returns: its answer, and the clock last, so that the sender
-- can set the next deadline by it.
local function with_clock(now, ...)
  local out = { ... }
  out[#out + 1] = whole(now)
  return out
end
