-- Which resources wait: one sorted set for each tenant, so that a busy tenant stands in nobody's way, and for each
-- partition the set of the tenants that have one. A tenant leaves that set when somebody finds nothing of it
-- (ready_resources.lua): what is busy need not be taken out and put in all the time.

-- From `at` (Unix ms) on the resource's next command may be claimed.
local function ready_at(ready, tenants, resource, at)
  if redis.call('ZADD', ready, int_to_string(at), resource) == 1 then
    redis.call('SADD', tenants, string.match(resource, '^[^:]+'))
  end
end

-- The same, for a resource that may have a lease or a retry under way: that keeps its time.
local function ready_if_absent(ready, tenants, resource, at)
  if redis.call('ZADD', ready, 'NX', int_to_string(at), resource) == 1 then
    redis.call('SADD', tenants, string.match(resource, '^[^:]+'))
  end
end

-- What `work` answers. Where it fails (keys that somebody has changed by hand, which only a person can mend), the
-- resource goes behind the others for a while: they are asked about in this order, and must not wait behind it for ever.
local function or_quarantine(ready, tenants, resource, work)
  local done, answer = pcall(work)
  if done then return answer end
  ready_at(ready, tenants, resource, math.floor(now_us() / 1000) + 30000)
  if type(answer) == 'table' and answer.err then return redis.error_reply(answer.err) end
  return redis.error_reply('ERR ' .. tostring(answer))
end
