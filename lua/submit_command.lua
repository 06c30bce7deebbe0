#!lua
-- Accepts or refuses one command, in one round trip.
--
-- KEYS: 1 state, 2 queue, 3 commands, 4 results, 5 finished, 6 ready, 7 backlog, 8 audit, 9 rate,
--       10 permissions, 11 floor, 12 workers, 13 tenant_workers, 14 request (of the command id, where the
--       client gave no request id)
-- ARGV: 1 deadline (Unix µs, 0 for none), 2 command id, 3 body digest, 4 has a request id (0/1),
--       5 grant: 'database', 'allowed', 'denied', 'internal',
--       6-8 what grants it (the permission and its two patterns), 9 limit a minute, 10 backlog limit,
--       11 record (JSON), 12 audit entry without its end (JSON, open), 13 control channel, 14 control message,
--       15 resource (tenant:kind:id), 16 action, 17 reply channel
-- Returns: {outcome, …} with outcome 'accepted' workers | 'repeated' command workers done_ms result |
--       'denied' | 'conflict' | 'limited' seconds | 'unknown' | 'full' | 'late'; the clock in µs last.
-- Safe to repeat: the command id is looked for first, and every check comes before the first write.

local WINDOW_US = 60000000
local REQUEST_SECONDS = 86400
-- A denial without a request id is remembered for as long as its sender may ask again after a lost answer.
local LOST_ANSWER_SECONDS = 10

local keys = {
  state = KEYS[1], queue = KEYS[2], commands = KEYS[3], results = KEYS[4], finished = KEYS[5],
  ready = KEYS[6], backlog = KEYS[7], audit = KEYS[8],
}
local command, digest, has_request, grant = ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5]
local now = now_us()
local now_ms = math.floor(now / 1000)

local function answer(...)
  local out = { ... }
  out[#out + 1] = whole(now)
  return out
end

local function audit_entry(event, rest)
  redis.call('XADD', keys.audit, '*', 'event', event, 'entry', ARGV[12] .. (rest or '') .. '}')
end

-- What a command accepted before is answered with; `workers` is what its ack said. Nil: there is none.
local function repeated(id, workers)
  local result = redis.call('HGET', keys.results, id)
  if result then
    local done_ms, said, message = string.match(result, '^(%d+)|(%d+)|(.*)$')
    return answer('repeated', id, said, done_ms, message)
  end
  local record = redis.call('HGET', keys.commands, id)
  workers = record and string.match(record, '^%d+|(%d+)|') or workers
  if workers then return answer('repeated', id, workers, '', '') end
end

local before = repeated(command)
if before then return before end

local first = redis.call('GET', KEYS[14])
if first then
  local seen_digest, outcome, id, workers = string.match(first, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
  if seen_digest ~= digest then return answer('conflict') end
  if outcome == 'denied' then return answer('denied') end
  return repeated(id, workers)
end

-- After the repeats: their answer is known however late they come.
local deadline = tonumber(ARGV[1])
if deadline > 0 and now > deadline then return answer('late') end

local permitted = grant == 'allowed' or grant == 'internal'
if grant == 'database' then
  local cached = redis.call('HMGET', KEYS[10], '@version', ARGV[6], ARGV[7], ARGV[8])
  if not cached[1] then return answer('unknown') end
  local floor = redis.call('GET', KEYS[11])
  if floor and tonumber(cached[1]) < tonumber(floor) then return answer('unknown') end
  permitted = cached[2] or cached[3] or cached[4]
end

if grant ~= 'internal' then
  -- The window before the permission: a denied command uses budget too, so it must find some.
  local limit = tonumber(ARGV[9])
  local oldest = redis.call('LINDEX', KEYS[9], limit - 1)
  if oldest then
    local left = tonumber(oldest) + WINDOW_US - now
    if left > 0 then
      audit_entry('rate_limited')
      local seconds = math.max(1, math.min(60, math.ceil(left / 1000000)))
      return answer('limited', whole(seconds))
    end
  end
  local function use_budget()
    redis.call('LPUSH', KEYS[9], whole(now))
    redis.call('LTRIM', KEYS[9], 0, limit - 1)
    -- A second more than the window: a list that went a moment early would let 30 through too soon.
    redis.call('PEXPIRE', KEYS[9], WINDOW_US / 1000 + 1000)
  end
  if not permitted then
    use_budget()
    redis.call('SET', KEYS[14], digest .. '|denied||', 'EX', has_request and REQUEST_SECONDS or LOST_ANSWER_SECONDS)
    audit_entry('denied')
    return answer('denied')
  end
  if tonumber(redis.call('GET', keys.backlog) or '0') >= tonumber(ARGV[10]) then return answer('full') end
  use_budget()
end

local workers = redis.call('ZCOUNT', KEYS[12], now_ms, '+inf') + redis.call('ZCOUNT', KEYS[13], now_ms, '+inf')

-- Neither list nor hash ever expires: an accepted command waits until it has a result. Both are gone when empty.
redis.call('HSET', keys.commands, command, whole(now_ms) .. '|' .. whole(workers) .. '|' .. ARGV[11])
redis.call('RPUSH', keys.queue, command)
redis.call('INCR', keys.backlog)
-- Only if it is not there: a lease or a retry under way keeps its time.
redis.call('ZADD', keys.ready, 'NX', now_ms, ARGV[15])
if has_request then
  redis.call('SET', KEYS[14], digest .. '|accepted|' .. command .. '|' .. whole(workers), 'EX', REQUEST_SECONDS)
end
audit_entry('accepted')

-- A cancel outranks the pauses and resumes that wait. One that is being carried out is told by `cancel`.
local function supersede()
  local held = redis.call('HMGET', keys.state, 'command', 'until')
  local claimed = held[1] and held[2] and tonumber(held[2]) > now_ms and held[1] or nil
  for _, id in ipairs(redis.call('LRANGE', keys.queue, 0, -1)) do
    local record = id ~= claimed and redis.call('HGET', keys.commands, id)
    local accepted, text = string.match(record or '', '^(%d+)|%d+|(.*)$')
    local readable, waiting = pcall(cjson.decode, text or '')
    if readable and type(waiting) == 'table' and waiting.action ~= 'cancel' then
      local message = waiting.failed .. ',"error":"Superseded by cancel"'
      if waiting.request_id and waiting.request_id ~= cjson.null then
        message = message .. ',"request_id":"' .. waiting.request_id .. '"'
      end
      finish(keys, id, 'failed', message .. '}',
        waiting.audit .. ',"outcome":"Superseded by cancel","attempts":0,"latency_ms":'
          .. whole(now_ms - tonumber(accepted)) .. '}',
        ARGV[17], now_ms)
      if id == held[1] then
        -- It waited for a retry, or its worker died; the cancel need not wait.
        redis.call('HDEL', keys.state, 'command', 'holder', 'until', 'attempts', 'not_before', 'desired')
        redis.call('ZADD', keys.ready, now_ms, ARGV[15])
      end
    end
  end
  redis.call('HSET', keys.state, 'cancel', command)
end

if ARGV[16] == 'cancel' then supersede() end
redis.call('EXPIRE', keys.state, RESOURCE_SECONDS)
redis.call('PUBLISH', ARGV[13], ARGV[14])
return answer('accepted', whole(workers))
