-- The clock of every limit and lease is Redis's own, so that gateways and workers need not agree on one.

-- That clock may be set: an administrator or NTP steps it, or a replica with another clock takes over. A step forwards
-- ends everything that has a time early, as if that much time had passed. A step backwards would make what was written
-- before it last longer by the whole step, so every script treats a stored time that lies further ahead than this
-- program ever writes as one that a wrong clock wrote. The header of each script says what that means there.

-- Nothing that is written here lies further ahead of the clock than this, except the lease of a claimed command (its
-- length is kept beside it) and the time of a schedule (which a person chose).
local MAX_AHEAD_MS = 60000

-- Unix time in µs.
local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- A whole number as text: tostring would write large ones as 1.79e+15. What Redis gets as a number it writes out by
-- itself, with all the care that fractions need: that takes ten times as long, so the hot scripts give it text.
local function int_to_string(n)
  return string.format('%d', n)
end

-- For so long a sender may ask again after a lost answer.
local LOST_ANSWER_SECONDS = '10'

-- What a script that is sent again after a lost answer returns: its answer, and the clock last, so that the sender
-- can set the next deadline by it.
local function with_clock(now, ...)
  local out = { ... }
  out[#out + 1] = int_to_string(now)
  return out
end
