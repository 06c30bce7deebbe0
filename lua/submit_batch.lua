#!lua
-- Accepts or refuses one action on up to 100 resources of a tenant, in one round trip: a part of a batch.
--
-- KEYS: 1-6 of the tenant (lib/command_keys.lua, the second group), 7 rate, 8 permissions, 9 min_permission_version, 10 workers,
--       11 tenant_workers, 12 batch (of the request id; without one: unnamed_batch), 13 refusals, 14 refusals_due, then 5 of
--       each resource
-- ARGV: 1 deadline (Unix µs, 0 for none), 2 batch id, 3 body digest, 4 seconds that the batch is remembered,
--       5 grant: 'database', 'allowed', 'denied', 6-8 what grants it, 9 limit a minute, 10 backlog limit,
--       11 budget units that the whole batch costs (0: an earlier part has paid), 12 action, 13 control channel,
--       14 what to remember of the batch where it is accepted (JSON), 15 audit entry of the whole, for one that is refused,
--       16 body digest as versions before stored it, 17 who asks (tenant:user),
--       then 4 for each resource: command id, resource, record (open), control message
-- Returns: {outcome, …} with 'done' workers, then 4 for each resource: 'accepted' control '' '' |
--       'repeated' control result former_result ('' and '' where there is none yet) | 'full' '' '' '' (control: as control_of
--       gives it) — or for all of them 'known' batch (this request has that id: come again with it) | 'denied' |
--       'conflict' | 'limited' seconds | 'unknown' | 'late'; the clock in µs last.
-- Safe to repeat: a batch's commands have the same ids each time, each is looked for first, and the batch key says
-- that the whole has been paid for. Every check of the whole comes before the first write.
-- When the clock is set: as for submit_command.

local shared, first_own, first_item = 1, 15, 18
local _, _, _, audit, _, _, rate, permissions, min_permission_version, workers_key, tenant_workers, batch_key, refusals,
  refusals_due = unpack(KEYS, 1, 14)
local deadline_us, batch, digest, remember_seconds, grant, exact, area, all, limit_text, max_backlog, cost_text, action,
  control_channel, remembered, refused_entry, former_digest, who = unpack(ARGV, 1, 17)
local limit, cost = tonumber(limit_text), tonumber(cost_text)
local items = (#KEYS - first_own + 1) / 5
local now = now_us()
local now_ms = math.floor(now / 1000)

-- What is remembered of a batch.
local BATCH = { body = 'string', outcome = 'string', batch_id = 'string' }

local function answer(...)
  return with_clock(now, ...)
end

local function item(n)
  local at = first_item + (n - 1) * 4
  return {
    command = ARGV[at], resource = ARGV[at + 1], record = ARGV[at + 2],
    control_message = ARGV[at + 3], control_channel = control_channel, action = action,
  }, command_keys(first_own + (n - 1) * 5, shared)
end

local function refuse(event)
  note_refusal(refusals, refusals_due, audit, who, event, refused_entry, now_ms)
end

local paid = cost == 0
local value = redis.call('GET', batch_key)
if value then
  local known = decode_typed(value, BATCH, {}) or decode_former_batch(value) or {}
  -- Remembered for longer than ever: by a clock that has been set back since.
  if redis.call('PTTL', batch_key) > tonumber(remember_seconds) * 1000 then redis.call('EXPIRE', batch_key, remember_seconds) end
  if known.body ~= digest and known.body ~= former_digest then return answer('conflict') end
  if known.outcome == 'denied' then return answer('denied') end
  if known.batch_id ~= batch then return answer('known', known.batch_id) end
  paid = true
end

local deadline = tonumber(deadline_us)
if deadline > 0 and now > deadline then return answer('late') end

if not paid then
  local permitted = grant == 'allowed'
  if grant == 'database' then
    permitted = is_permitted(permissions, redis.call('GET', min_permission_version), exact, area, all, now_ms)
    if permitted == nil then return answer('unknown') end
  end
  local seconds = budget_wait(rate, limit, cost, now)
  if seconds then
    refuse('rate_limited')
    return answer('limited', int_to_string(seconds))
  end
  use_budget(rate, limit, cost, now)
  local denied = { v = RECORD_VERSION, body = digest, outcome = 'denied', batch_id = batch }
  redis.call('SET', batch_key, permitted and remembered or cjson.encode(denied), 'EX', remember_seconds)
  if not permitted then
    refuse('denied')
    return answer('denied')
  end
end

local workers = workers_online(workers_key, tenant_workers, now_ms)
local out = { 'done', workers }
for n = 1, items do
  local c, keys = item(n)
  local result = redis.call('HMGET', keys.results, 'record:' .. c.command, c.command)
  local outcome = 'accepted'
  local control, host = control_of(keys.state, workers_key, tenant_workers, c.resource, now_ms)
  if result[1] or result[2] then
    outcome = 'repeated'
  elseif redis.call('HEXISTS', keys.commands, c.command) == 1 then
    outcome = 'repeated'
  elseif tonumber(redis.call('GET', keys.backlog) or '0') >= tonumber(max_backlog) then
    outcome, control = 'full', ''
  else
    c.control, c.host = control, host
    accept(keys, c, workers, now_ms)
  end
  out[#out + 1], out[#out + 2], out[#out + 3], out[#out + 4] = outcome, control, result[1] or '', result[2] or ''
end
return answer(unpack(out))
