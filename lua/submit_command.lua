#!lua
-- Accepts or refuses one command, in one round trip; or keeps it for later, or brings in one that was kept.
--
-- KEYS: 1-11 of the resource's commands (lib/command_keys.lua), 12 rate, 13 permissions, 14 min_permission_version, 15 workers,
--       16 tenant_workers, 17 request (where the client gave no request id: denied, of the command),
--       18 schedule, 19 schedules, 20 refusals, 21 refusals_due, and with a request id 22-24 the requests of three days in turn,
--       25-27 the same as the version before keeps them
-- ARGV: 1 deadline (Unix µs, 0 for none), 2 command id, 3 body digest, 4 has a request id (0/1),
--       5 grant: 'database', 'allowed', 'denied', 'internal',
--       6-8 what grants it (the permission and its two patterns), 9 limit a minute, 10 backlog limit,
--       11 record (JSON, open: what is kept of the command, and what each of its audit entries begins with),
--       12 control channel, 13 control message, 14 resource (tenant:kind:id), 15 action,
--       16 when: 'now', 'at' (Unix ms), 'in' (ms from now), 'due' (was kept, and its time has come), 17 that number,
--       18 limit of schedules, 19 body digest as versions before stored it, 20 who asks (tenant:user),
--       and with a request id 21 the request's name among those of the version before, 22 its field among the requests,
--       23 what was asked for, as it is kept there, 24 whether programs of the version before may run, which are to find it (0/1)
-- Returns: {outcome, …} with outcome 'accepted' workers control | 'repeated' command workers control result former_result
--       ('' where nobody has kept what the ack said: then the result has it; '' and '' where there is no result yet) |
--       'scheduled' command run_at result former_result | 'withdrawn' command (it was scheduled, and taken back) | 'denied' | 'conflict' | 'limited' seconds | 'unknown' | 'full' |
--       'late' | 'gone' (was withdrawn, or brought in already); the clock in µs last. control: as control_of gives it.
-- Safe to repeat: the command id is looked for first, and every check comes before the first write.
-- When the clock is set forwards: every user has a new window, a request id is forgotten early (by a step of a day, at
-- once: sent again it is a new command), the deadline may be over (the sender sets a new one by the clock in the answer),
-- and a delay begins at the new time. Backwards: uses of the window that lie ahead count as of now (lib/budget.lua), a
-- request id that would be remembered for longer than a day from now is remembered for a day, permissions filled later
-- than now are unknown (lib/permission.lua), and workers further ahead than a heartbeat lasts are not counted.

local REQUEST_MS = 86400000
-- A schedule that found the backlog full comes again after this.
local AGAIN_MS = 1000

local keys = command_keys(1, 6)
local rate, permissions, min_permission_version, workers_key, tenant_workers, request, schedule, schedules, refusals,
  refusals_due = unpack(KEYS, 12, 21)
local deadline_us, command, digest, has_request_id, grant, exact, area, all, limit_text, max_backlog, record,
  control_channel, control_message, resource, action, when, when_ms, max_schedules, former_digest, who, former_name,
  request_field, short_digest, with_former =
  unpack(ARGV)
-- Where they were not given, a request is kept in its own key.
local requests, former_requests = KEYS[22] and 22, 25
local has_request = has_request_id == '1'
local due = when == 'due'
local member = resource .. '|' .. command
local now = now_us()
local now_ms = math.floor(now / 1000)

local function answer(...)
  return with_clock(now, ...)
end

local function audit_entry(event, ...)
  redis.call('XADD', keys.audit, '*', 'event', event, 'at', int_to_string(now_ms), 'entry', close_record(record, ...))
end

local function refused(event)
  note_refusal(refusals, refusals_due, keys.audit, who, event, close_record(record), now_ms)
end

-- The result of a command: its record and what version 0.1 reads; nil where there is none.
local function result_of(id)
  local result = redis.call('HMGET', keys.results, 'record:' .. id, id)
  if result[1] or result[2] then return result[1] or '', result[2] or '' end
end

-- Who hosts the job just now.
local function control_now()
  return control_of(keys.state, workers_key, tenant_workers, resource, now_ms)
end

-- What a command accepted before is answered with; `workers` and `control` are what its ack said. Without a request id
-- nobody has kept the latter, but then its sender asks again within moments. Nil: there is none.
local function repeated(id, workers, control)
  local result, former = result_of(id)
  if result then
    return answer('repeated', id, workers and int_to_string(workers) or '', control or '', result, former)
  end
  local record = decode_stored_command(redis.call('HGET', keys.commands, id))
  workers = record and record.workers_online or workers
  if workers then return answer('repeated', id, int_to_string(workers), control or (control_now()), '', '') end
end

-- The same for one that was scheduled.
local function repeated_schedule(id, run_at)
  local result, former = result_of(id)
  return answer('scheduled', id, int_to_string(run_at), result or '', former or '')
end

-- Keeps the first answer to the request: for a day among the requests, for any other time in a key of its own.
local function remember(outcome, fields, ttl_ms)
  fields.outcome = outcome
  local is_among_others = requests and ttl_ms == REQUEST_MS
  if is_among_others then
    fields.body = short_digest
    remember_request(requests, request_field, fields, now_ms)
  end
  fields.v, fields.body = RECORD_VERSION, digest
  if not is_among_others then
    redis.call('SET', request, cjson.encode(fields), 'PX', int_to_string(ttl_ms))
  elseif with_former == '1' then
    remember_former_request(former_requests, former_name, fields, now_ms)
  end
end

-- Also for an id that was made a moment ago: a second sending may arrive before the first.
local before = repeated(command)
if before and not due then return before end

-- What is known of the request (in a key of its own: by a version before, or of a scheduled or denied one), the lowest version of permissions that counts, the commands that wait.
local first, min_version, backlog = unpack(redis.call('MGET', request, min_permission_version, keys.backlog))

if due then
  if before or redis.call('HEXISTS', schedules, command) == 0 then
    redis.call('ZREM', schedule, member)
    return answer('gone')
  end
else
  local scheduled = when ~= 'now' and redis.call('HGET', schedules, command)
  if scheduled then
    local run_at, json = split_former_schedule(scheduled)
    local record = decode_typed(json, {}, { run_at = 'number' })
    return repeated_schedule(command, record and record.run_at or tonumber(run_at))
  end
  local said
  if requests then
    -- Both: where the clock was set back, each learns when it ends by now.
    local former = find_former_request(former_requests, former_name, now_ms)
    said = find_request(requests, request_field, now_ms) or former
  end
  if first and not said then
    said = decode_request(first) or decode_former_request(first) or {}
    local longest = REQUEST_MS + math.max(0, (said.run_at or 0) - now_ms)
    if redis.call('PTTL', request) > longest then redis.call('PEXPIRE', request, int_to_string(longest)) end
  end
  if said then
    if said.body ~= short_digest and said.body ~= digest and said.body ~= former_digest then return answer('conflict') end
    if said.outcome == 'denied' then return answer('denied') end
    if said.withdrawn then return answer('withdrawn', said.command_id) end
    if said.outcome == 'scheduled' then return repeated_schedule(said.command_id, said.run_at) end
    return repeated(said.command_id, said.workers_online, said.control)
  end
end

-- After the repeats: their answer is known however late they come.
local deadline = tonumber(deadline_us)
if deadline > 0 and now > deadline then return answer('late') end

local permitted = grant == 'allowed' or grant == 'internal'
if grant == 'database' then
  permitted = is_permitted(permissions, min_version, exact, area, all, now_ms)
  if permitted == nil then return answer('unknown') end
end

local run_at = now_ms
if when == 'at' then run_at = tonumber(when_ms) elseif when == 'in' then run_at = now_ms + tonumber(when_ms) end
local later = run_at > now_ms

local function is_full()
  if later then return redis.call('HLEN', schedules) >= tonumber(max_schedules) end
  return tonumber(backlog or '0') >= tonumber(max_backlog)
end

if due then
  -- Its budget was used when it was asked for.
  if not permitted then
    redis.call('ZREM', schedule, member)
    redis.call('HDEL', schedules, command)
    local ended = ended_by_script(decode_record(close_record(record)), 'denied', 'permission_denied', control_now(), now_ms)
    redis.call('XADD', keys.audit, '*', 'event', 'denied', 'kept', '1', 'at', int_to_string(now_ms), 'entry', ended.audit)
    record_result(keys, command, ended.workers, ended.result, ended.message, resource .. ':reply', now_ms)
    return answer('denied')
  end
  if is_full() then
    redis.call('ZADD', schedule, 'XX', now_ms + AGAIN_MS, member)
    return answer('full')
  end
  redis.call('ZREM', schedule, member)
  redis.call('HDEL', schedules, command)
elseif grant ~= 'internal' then
  -- The window before the permission: a denied command uses budget too, so it must find some.
  local limit = tonumber(limit_text)
  local seconds = budget_wait(rate, limit, 1, now)
  if seconds then
    refused('rate_limited')
    return answer('limited', int_to_string(seconds))
  end
  if not permitted then
    use_budget(rate, limit, 1, now)
    -- Without a request id it is remembered for as long as its sender may ask again.
    remember('denied', {}, has_request and REQUEST_MS or tonumber(LOST_ANSWER_SECONDS) * 1000)
    refused('denied')
    return answer('denied')
  end
  if is_full() then return answer('full') end
  use_budget(rate, limit, 1, now)
end

if later then
  local json = close_record(record, 'run_at', run_at, 'asked_at', now_ms)
  redis.call('HSET', schedules, command, with_former_schedule_head(json, run_at, now_ms, resource))
  redis.call('ZADD', schedule, run_at, member)
  -- As long as it waits, and a day more.
  if has_request then remember('scheduled', { command_id = command, run_at = run_at }, REQUEST_MS + run_at - now_ms) end
  audit_entry('scheduled', 'run_at', run_at)
  return answer('scheduled', command, int_to_string(run_at), '', '')
end

local workers = workers_online(workers_key, tenant_workers, now_ms)
local control, host = control_now()
if has_request and not due then
  local said = { command_id = command, workers_online = tonumber(workers), control = control ~= '' and control or nil }
  remember('accepted', said, REQUEST_MS)
end
accept(keys, {
  command = command, action = action, resource = resource, record = record, control = control, host = host,
  control_channel = control_channel, control_message = control_message,
}, workers, now_ms)
return answer('accepted', workers, control)
