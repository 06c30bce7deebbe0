-- Refusals of one user: the first of a minute have an audit entry each, all others are counted, and one entry tells of them.
-- So nobody fills the audit trail with commands that are refused.

-- So many have entries of their own, for each reason: all that are denied, where a user may send 30 commands a minute.
local SINGLE_REFUSALS = 30
local REFUSALS_WINDOW_MS = 60000
-- Those that were counted are written for so long after the first of them.
local COUNTED_MS = 10000
local REFUSALS = { event = 'string', since = 'number', single = 'number', counted = 'number' }
local REFUSALS_OPTIONAL = { first_at = 'number', last_at = 'number', entry = 'string' }

-- What is known of one user's refusals, from its text; nil where it is none.
local function decode_refusals(text)
  local kept = decode_typed(text, REFUSALS, REFUSALS_OPTIONAL)
  if kept and kept.counted ~= 0 and not (kept.entry and kept.first_at and kept.last_at) then return nil end
  return kept
end

-- The entry that tells of counted refusals: what the first of them was, how many there were, and when.
local function write_counted_refusals(audit, kept, now_ms)
  if kept.counted == 0 then return end
  local entry = close_record(
    open_record(kept.entry), 'refusals', kept.counted, 'first_at', kept.first_at, 'last_at', kept.last_at)
  redis.call('XADD', audit, '*', 'event', kept.event, 'at', int_to_string(now_ms), 'entry', entry)
end

-- A window that lies ahead was begun by a clock that has been set back since.
local function is_refusals_window_over(kept, now_ms)
  return kept.since > now_ms or kept.since + REFUSALS_WINDOW_MS <= now_ms
end

-- Writes or counts one. who: tenant:user; entry: its audit entry, closed.
local function note_refusal(refusals, refusals_due, audit, who, event, entry, now_ms)
  local member = event .. ':' .. who
  local kept = decode_refusals(redis.call('HGET', refusals, member))
  local due
  if not kept or is_refusals_window_over(kept, now_ms) then
    if kept then write_counted_refusals(audit, kept, now_ms) end
    kept = { v = RECORD_VERSION, event = event, since = now_ms, single = 0, counted = 0 }
    due = now_ms + REFUSALS_WINDOW_MS
  end
  if kept.single < SINGLE_REFUSALS then
    kept.single = kept.single + 1
    redis.call('XADD', audit, '*', 'event', event, 'at', int_to_string(now_ms), 'entry', entry)
  else
    if kept.counted == 0 then
      kept.first_at, kept.entry = now_ms, entry
      due = now_ms + COUNTED_MS
    end
    kept.counted, kept.last_at = kept.counted + 1, now_ms
  end
  redis.call('HSET', refusals, member, cjson.encode(kept))
  if due then redis.call('ZADD', refusals_due, int_to_string(due), member) end
end
