-- `fuzzing.rs`: what scripts do with the records that they find, with made-up ones.

local now_ms = math.floor(now_us() / 1000)

local function read(text)
  local stored = decode_stored_command(text)
  if stored then ended_by_script(stored, 'expired', 'expired', 'row', now_ms) end
  local request = decode_request(text) or decode_former_request(text)
  if request and request.run_at then int_to_string(request.run_at) end
  for _, hash in ipairs(KEYS) do redis.call('HSET', hash, 'field', text) end
  find_request(1, 'field', now_ms)
  find_former_request(1, 'field', now_ms)
  local run_at, json = split_former_schedule(text)
  local schedule = decode_typed(json, {}, { run_at = 'number' })
  int_to_string(schedule and schedule.run_at or tonumber(run_at) or 0)
  decode_former_batch(text)
  local refusals = decode_refusals(text)
  if refusals then
    is_refusals_window_over(refusals, now_ms)
    if refusals.counted ~= 0 then
      close_record(open_record(refusals.entry), 'refusals', refusals.counted, 'first_at', refusals.first_at)
    end
    cjson.encode(refusals)
  end
end

for n, text in ipairs(ARGV) do
  local done, problem = pcall(read, text)
  if not done then return { n, type(problem) == 'table' and problem.err or tostring(problem) } end
end
return {}
