-- What is kept of a command until it has its result: JSON, and what each of its audit entries begins with.

-- Decoded; nil where it is corrupt.
local function decode_stored_command(text)
  local readable, record = pcall(cjson.decode, text or '')
  if not readable or type(record) ~= 'table' then return nil end
  for _, name in ipairs({ 'tenant_id', 'user_id', 'resource_kind', 'resource_id', 'command_id' }) do
    if type(record[name]) ~= 'string' then return nil end
  end
  return ({ cancel = true, pause = true, resume = true })[record.action] and record
end

-- The `…_failed` of a decoded record, as protocol/server.rs writes it. Nothing in it needs to be escaped: ids cannot
-- hold what would, and the words are this program's own. `control`: as control_of gives it.
local function failed_message(record, words, control)
  local message = '{"type":"' .. record.action .. '_failed","' .. record.resource_kind .. '_id":"'
    .. record.resource_id .. '","tenant_id":"' .. record.tenant_id .. '","command_id":"' .. record.command_id
    .. '","error":"' .. words .. '"'
  if control ~= '' then message = message .. ',"control":"' .. control .. '"' end
  if record.request_id and record.request_id ~= cjson.null then
    message = message .. ',"request_id":"' .. record.request_id .. '"'
  end
  return message .. '}'
end

-- The audit entry of a command that no worker ended: its record, and these words.
local function outcome_entry(text, words, accepted_ms, now_ms)
  return string.sub(text, 1, -2) .. ',"outcome":"' .. words .. '","attempts":0,"latency_ms":'
    .. int_to_string(math.max(0, now_ms - tonumber(accepted_ms))) .. '}'
end
