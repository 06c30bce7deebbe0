-- The shapes of version 0.1, which is read and written for one version more, so that gateways and workers of both
-- versions work side by side during an upgrade. This file and its callers go one version later, as
-- broker/scripts/former.rs does; records are read without it already.

-- What stands in front of a stored command's JSON, and the JSON: accepted_ms, workers, JSON. Where nothing stands in
-- front: nil, nil, all of it.
local function split_former_command(value)
  local accepted, workers, json = string.match(value, '^(%d+)|(%d+)|(.*)$')
  return accepted, workers, json or value
end

-- A stored command as version 0.1 reads it, too.
local function with_former_command_head(json, accepted_ms, workers)
  return int_to_string(accepted_ms) .. '|' .. workers .. '|' .. json
end

-- The same for a scheduled command.
local function split_former_schedule(value)
  local run_at, json = string.match(value, '^(%d+)|%d+|[^|]*|(.*)$')
  return run_at, json or value
end

local function with_former_schedule_head(json, run_at, asked_at, resource)
  return int_to_string(run_at) .. '|' .. int_to_string(asked_at) .. '|' .. resource .. '|' .. json
end

-- The same for a failed command. message: its result message.
local function with_former_failed_head(json, event, resource, message, now_ms)
  return int_to_string(now_ms) .. '|' .. event .. '|' .. resource .. '|' .. message .. '\n' .. json
end

-- A result as version 0.1 reads it, under the command's id.
local function former_result(workers, message, now_ms)
  return int_to_string(now_ms) .. '|' .. workers .. '|' .. message
end

-- What version 0.1 remembers of a request, as the record of today; nil where it is none.
local function decode_former_request(value)
  local body, outcome, id, number = string.match(value, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
  if not body then return nil end
  local scheduled = outcome == 'scheduled'
  -- 'accepted' alone: of a campaign's command.
  local control = string.match(outcome, '^accepted_(%l+)$')
  return {
    body = body, outcome = control and 'accepted' or outcome, control = control, command_id = id,
    run_at = scheduled and tonumber(number) or nil, workers_online = not scheduled and tonumber(number) or nil,
  }
end

-- The same of a batch.
local function decode_former_batch(value)
  local body, outcome, id = string.match(value, '^([^|]*)|([^|]*)|([^|]*)|')
  return body and { body = body, outcome = outcome, batch_id = id }
end
