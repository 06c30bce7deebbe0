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
