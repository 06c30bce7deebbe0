-- What is kept of a command until it has its result, and the result of one that a script ends.

local STORED_COMMAND = {
  tenant_id = 'string', user_id = 'string', resource_kind = 'string', resource_id = 'string', command_id = 'string',
  action = 'string',
}
local STORED_COMMAND_NUMBERS = { accepted_at = 'number', workers_online = 'number' }
local ACTIONS = { cancel = true, pause = true, resume = true }
local RESOURCE_KINDS = { job = true, campaign = true }

-- Decoded; nil where it is corrupt. value: as it stands among the commands.
local function decode_stored_command(value)
  local accepted, workers, json = split_former_command(value or '')
  local record = decode_typed(json, STORED_COMMAND, STORED_COMMAND_NUMBERS)
  if not record or not ACTIONS[record.action] or not RESOURCE_KINDS[record.resource_kind] then return nil end
  record.accepted_at = record.accepted_at or tonumber(accepted)
  record.workers_online = record.workers_online or tonumber(workers)
  if not record.accepted_at or not record.workers_online then return nil end
  return record
end

-- As it is to stand among the commands. open: its record as Rust wrote it.
local function encode_stored_command(open, accepted_ms, workers)
  local json = close_record(open, 'accepted_at', accepted_ms, 'workers_online', workers)
  return with_former_command_head(json, accepted_ms, workers)
end

-- What end_command takes for a decoded command that ends without a worker. code: of an error of which `error_message`
-- (made by broker/scripts/messages.rs) has the sentence. control: as control_of gives it.
local function ended_by_script(record, event, code, control, now_ms)
  local request_id = type(record.request_id) == 'string' and record.request_id or nil
  local words = error_message(code, record.resource_kind, record.action)
  -- None of these values needs to be escaped: ids cannot hold what would, and a test sees to the sentences.
  local message = string.gsub(failed_template(record.resource_kind, request_id ~= nil), '%${([%l_]+)}', {
    action = record.action, resource_id = record.resource_id, tenant_id = record.tenant_id,
    command_id = record.command_id, error = words, control = control, request_id = request_id,
  })
  local result = {
    v = RECORD_VERSION, action = record.action, outcome = 'failed', error = { code = code },
    control = control ~= '' and control or nil, request_id = request_id,
    ended_at = now_ms, workers_online = record.workers_online or 0,
  }
  -- The audit entry and the record of a failed command begin with all that is known of the command.
  local audit, failed = {}, {}
  for name, value in pairs(record) do audit[name], failed[name] = value, value end
  audit.outcome = words
  -- One that was only ever scheduled was not accepted.
  if record.accepted_at then audit.attempts, audit.latency_ms = 0, math.max(0, now_ms - record.accepted_at) end
  failed.event, failed.error, failed.failed_at = event, result.error, now_ms
  return {
    event = event, message = message, result = cjson.encode(result), audit = cjson.encode(audit),
    failed = cjson.encode(failed), workers = int_to_string(result.workers_online),
  }
end
