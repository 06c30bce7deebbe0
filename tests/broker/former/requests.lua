#!lua
-- How the version before the one with `@request_ids` finds the first answer to a request: its own words, unchanged.
--
-- KEYS: the three hashes. ARGV: the request's name.
-- Returns: the answer as JSON | nil

-- lua/lib/clock.lua of that version.
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
-- lua/lib/record.lua of that version.
-- Records are JSON objects with the version `v` (docs/decisions/0004-records-in-redis.md). Rust writes those that it knows
-- whole. To one that comes open, without its closing brace, a script appends the numbers that Redis alone knows.

-- The version of the records that scripts write by themselves.
local RECORD_VERSION = 1

-- An open record, closed, with these whole numbers: name, number, name, number…
local function close_record(open, ...)
  local numbers = { ... }
  for i = 1, #numbers, 2 do
    open = open .. ',"' .. numbers[i] .. '":' .. int_to_string(numbers[i + 1])
  end
  return open .. '}'
end

-- A closed record, open again: for what is to have more fields than the record that it begins with.
local function open_record(closed)
  return string.sub(closed, 1, -2)
end

-- A record from its text; nil where it is none.
local function decode_record(text)
  local readable, record = pcall(cjson.decode, text or '')
  if readable and type(record) == 'table' then return record end
  return nil
end

-- The same, where each of these fields is of its type, and each of `optional` is so where it is there: name to type. Nil for
-- what somebody has changed by hand: a script would fail at it half-way, with a part of its writes done.
local function decode_typed(text, required, optional)
  local record = decode_record(text)
  if not record then return nil end
  for name, kind in pairs(required) do
    if type(record[name]) ~= kind then return nil end
  end
  for name, kind in pairs(optional) do
    if record[name] ~= nil and type(record[name]) ~= kind then return nil end
  end
  -- A number that is not finite can be read and not be written again.
  return pcall(cjson.encode, record) and record or nil
end
-- lua/lib/requests.lua of that version.
-- The first answers to requests that have an id, for a day.
--
-- They lie in hashes and not in keys of their own: a partition with 300,000 keys takes a cluster most of a minute to move, and
-- all that time its tenants are refused. A day of requests is one generation of hashes, and the generation of a day is used
-- again three days later; each goes as a whole when nothing in it can count any more. When an answer ends stands in itself.

local DAY_MS = 86400000

local REQUEST = { body = 'string', outcome = 'string' }
local REQUEST_OPTIONAL = {
  command_id = 'string', control = 'string', run_at = 'number', workers_online = 'number', ends = 'number',
}

-- The first answer to a request from its text; nil where it is none.
local function decode_request(text)
  local said = decode_typed(text, REQUEST, REQUEST_OPTIONAL)
  if not said or said.outcome ~= 'denied' and not said.command_id then return nil end
  return (said.outcome ~= 'scheduled' or said.run_at) and said or nil
end

-- The hash of the day that is `ago` days before this one; `first`: the index of generation 0 among KEYS.
local function requests_of_day(first, now_ms, ago)
  return KEYS[first + (math.floor(now_ms / DAY_MS) - ago) % 3]
end

-- The first answer to a request, as text, and the hash that has it; nil where there is none (any more). The third generation
-- is looked at for the sake of a clock that was set back.
local function find_request(first, field, now_ms)
  for ago = 0, 2 do
    local hash = requests_of_day(first, now_ms, ago)
    local text = redis.call('HGET', hash, field)
    local said = text and decode_request(text)
    if said and said.ends and said.ends > now_ms then
      if said.ends > now_ms + DAY_MS then
        -- By a clock that has been set back since.
        said.ends = now_ms + DAY_MS
        redis.call('HSET', hash, field, cjson.encode(said))
      end
      return said
    end
  end
end

-- fields: of the answer, with all but its end.
local function remember_request(first, field, fields, now_ms)
  fields.ends = now_ms + DAY_MS
  local hash = requests_of_day(first, now_ms, 0)
  redis.call('HSET', hash, field, cjson.encode(fields))
  -- It goes a day after this one has ended, and not all hashes of a partition in the same second: what goes is freed at once.
  local left = redis.call('PTTL', hash)
  if left < DAY_MS or left > 3 * DAY_MS then
    local spread = tonumber(string.match(hash, '%d+$')) * 60000
    redis.call('PEXPIRE', hash, int_to_string((math.floor(now_ms / DAY_MS) + 2) * DAY_MS - now_ms + spread))
  end
end

local said = find_request(1, ARGV[1], math.floor(now_us() / 1000))
return said and cjson.encode(said)
