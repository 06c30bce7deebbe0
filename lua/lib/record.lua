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
