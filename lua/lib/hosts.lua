-- Whether a worker hosts a job: then a command reaches its work, and otherwise only its row.

-- A heartbeat further ahead than any lasts was written before the clock was set back, and says nothing (lib/clock.lua).
-- 'live' and the host, 'row', or '' for a campaign. `state`: of the resource; `workers`, `tenant_workers`: who is alive.
local function control_of(state, workers, tenant_workers, resource, now_ms)
  if not string.find(resource, '^[^:]+:job:') then return '' end
  local host = redis.call('HGET', state, 'host')
  if not host then return 'row' end
  local alive = redis.call('ZSCORE', workers, host) or redis.call('ZSCORE', tenant_workers, host)
  local at = tonumber(alive or '0')
  if at > now_ms and at <= now_ms + MAX_AHEAD_MS then return 'live', host end
  return 'row'
end
