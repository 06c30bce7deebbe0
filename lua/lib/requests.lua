-- The first answers to requests that have an id, for a day.
--
-- They lie in hashes and not in keys of their own, and the hashes are small and so are their fields, so that Redis keeps each as one
-- piece of memory (a listpack), which it moves to another server as it is: a partition with 300,000 keys takes a cluster most of a
-- minute to move, large hashes some seconds, and all that time its tenants are refused. A day of requests is one generation of
-- hashes, and the generation of a day is used again three days later; each goes as a whole when nothing in it can count any more.
--
-- What is kept of one is a text: a letter for the outcome (`l` and `r` accepted, with the control that its ack said, `n`
-- accepted without one, `d` denied), ten digits for when it ends (Unix s), the command's id without dashes (zeros where there is
-- none), how many workers were online, and what was asked for, as the sender gives it: it begins with a letter.

local DAY_MS = 86400000
local NO_COMMAND = string.rep('0', 32)
local LETTER_OF_CONTROL = { live = 'l', row = 'r' }
local CONTROL_OF_LETTER = { l = 'live', r = 'row' }

local REQUEST = { body = 'string', outcome = 'string' }
local REQUEST_OPTIONAL = {
  command_id = 'string', control = 'string', run_at = 'number', workers_online = 'number', ends = 'number',
  withdrawn = 'boolean',
}

-- The first answer to a request that has a key of its own, from its text; nil where it is none.
local function decode_request(text)
  local said = decode_typed(text, REQUEST, REQUEST_OPTIONAL)
  if not said or said.outcome ~= 'denied' and not said.command_id then return nil end
  return (said.outcome ~= 'scheduled' or said.run_at) and said or nil
end

-- One that is kept among others, as a text. `body`: what was asked for, as short as it is there.
local function request_text(said)
  local letter = said.outcome == 'denied' and 'd' or LETTER_OF_CONTROL[said.control] or 'n'
  local id = said.command_id and string.gsub(said.command_id, '-', '') or NO_COMMAND
  -- Rounded up: nothing is forgotten before its day is over.
  local ends = string.format('%010d', math.ceil(said.ends / 1000))
  return letter .. ends .. id .. (said.workers_online and int_to_string(said.workers_online) or '') .. said.body
end

-- The inverse; nil where somebody has changed it.
local function read_request_text(text)
  local letter, ends = string.match(text, '^([lrnd])(%d%d%d%d%d%d%d%d%d%d)%x')
  local id, dashes = string.gsub(string.sub(text, 12, 43), '^(%x%x%x%x%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x%x%x%x%x%x%x%x%x%x%x%x)$', '%1-%2-%3-%4-%5')
  local workers, body = string.match(text, '^(%d*)(%l.*)$', 44)
  if not letter or dashes == 0 or not body or #workers > 9 then return nil end
  if letter == 'd' then return { outcome = 'denied', body = body, ends = tonumber(ends) * 1000 } end
  if workers == '' then return nil end
  return {
    outcome = 'accepted', body = body, ends = tonumber(ends) * 1000, command_id = id,
    control = CONTROL_OF_LETTER[letter], workers_online = tonumber(workers),
  }
end

-- The hash of the day that is `ago` days before this one; `first`: the index of generation 0 among KEYS.
local function requests_of_day(first, now_ms, ago)
  return KEYS[first + (math.floor(now_ms / DAY_MS) - ago) % 3]
end

-- A hash of requests goes a day after the last of them has ended, and not all hashes of a partition in the same second: what
-- goes is freed at once.
local function expire_requests(hash, spread_ms, now_ms)
  local left = redis.call('PTTL', hash)
  if left < DAY_MS or left > 3 * DAY_MS then
    redis.call('PEXPIRE', hash, int_to_string((math.floor(now_ms / DAY_MS) + 2) * DAY_MS - now_ms + spread_ms))
  end
end

-- The first answer to a request; nil where there is none (any more). The third generation is looked at for the sake of a clock
-- that was set back.
local function find_request(first, field, now_ms)
  for ago = 0, 2 do
    local hash = requests_of_day(first, now_ms, ago)
    local text = redis.call('HGET', hash, field)
    local said = text and read_request_text(text)
    if said and said.ends > now_ms then
      if said.ends > now_ms + DAY_MS + 1000 then
        -- By a clock that has been set back since.
        said.ends = now_ms + DAY_MS
        redis.call('HSET', hash, field, request_text(said))
      end
      return said
    end
  end
end

-- said: outcome, body, and of one that was accepted command_id, workers_online and control.
local function remember_request(first, field, said, now_ms)
  said.ends = now_ms + DAY_MS
  local hash = requests_of_day(first, now_ms, 0)
  redis.call('HSET', hash, field, request_text(said))
  expire_requests(hash, tonumber(string.match(hash, '%d+$')) * 1000, now_ms)
end
