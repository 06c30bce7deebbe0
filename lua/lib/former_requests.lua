-- The first answers to requests as the version before keeps them: as JSON, in larger hashes. Read for a day after an upgrade, and
-- written as well while programs of that version may run, so that each finds what the other has said. This file and its callers
-- go one version later.

-- As `find_request`; `first`: the index of generation 0 of these hashes among KEYS.
local function find_former_request(first, name, now_ms)
  if redis.call('EXISTS', KEYS[first], KEYS[first + 1], KEYS[first + 2]) == 0 then return nil end
  for ago = 0, 2 do
    local hash = requests_of_day(first, now_ms, ago)
    local text = redis.call('HGET', hash, name)
    local said = text and decode_request(text)
    if said and said.ends and said.ends > now_ms then
      if said.ends > now_ms + DAY_MS then
        -- By a clock that has been set back since.
        said.ends = now_ms + DAY_MS
        redis.call('HSET', hash, name, cjson.encode(said))
      end
      return said
    end
  end
end

-- record: the answer with all but its end.
local function remember_former_request(first, name, record, now_ms)
  record.ends = now_ms + DAY_MS
  local hash = requests_of_day(first, now_ms, 0)
  redis.call('HSET', hash, name, cjson.encode(record))
  expire_requests(hash, tonumber(string.match(hash, '%d+$')) * 60000, now_ms)
end
