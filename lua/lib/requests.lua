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
