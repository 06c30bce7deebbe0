#!lua
-- A worker leads partitions for a while longer, those that no other one leads, and sees what there is to do for their leader.
--
-- KEYS: of each partition its leader, its heartbeats and its tenants. All of them lie on one server; in a cluster it is one partition
-- ARGV: 1 worker, 2 lease (ms; 0 gives the partitions up), 3 how long a heartbeat lasts (ms; 0: no time is cut down that a clock has
--       spoilt), 4 tenants at most, and for each partition whether heartbeats are looked at there ('1', else '0')
-- Returns: for each partition {'1' where it leads, else '0'; workers whose heartbeats there have ended; tenants with a `ready`}
-- Safe to repeat: a repeat lengthens the lease.
-- When the clock is set forwards: the lease ends early, and another worker may lead as well for a moment; both do the same,
-- and nothing that they do is done twice for it. Backwards: a lease that lasts longer than one lease from now on is cut down
-- to that, and so is a heartbeat.

local worker, lease_ms, ttl_ms, limit = unpack(ARGV)
local gives_up, mends = lease_ms == '0', ttl_ms ~= '0'

local leaders = {}
for i = 1, #KEYS, 3 do leaders[#leaders + 1] = KEYS[i] end
local holders = redis.call('MGET', unpack(leaders))

-- Of many partitions few have anything that waits: they are asked together.
local led_tenants = {}
for n, holder in ipairs(holders) do
  if not gives_up and (not holder or holder == worker) then led_tenants[#led_tenants + 1] = KEYS[n * 3] end
end
local anything_waits = #led_tenants > 0 and redis.call('EXISTS', unpack(led_tenants)) > 0

local now_ms
local function dead_of(heartbeats)
  now_ms = now_ms or math.floor(now_us() / 1000)
  if mends then
    local lasts = int_to_string(now_ms + tonumber(ttl_ms))
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', heartbeats, '(' .. lasts, '+inf')) do
      redis.call('ZADD', heartbeats, lasts, id)
    end
  end
  return redis.call('ZRANGEBYSCORE', heartbeats, '-inf', '(' .. int_to_string(now_ms), 'LIMIT', '0', '100')
end

local duties = {}
for n, leader in ipairs(leaders) do
  local holder, heartbeats, tenants = holders[n], KEYS[n * 3 - 1], KEYS[n * 3]
  if holder and holder ~= worker then
    if mends and not gives_up and redis.call('PTTL', leader) > tonumber(lease_ms) then
      redis.call('PEXPIRE', leader, lease_ms)
    end
    duties[n] = { '0', {}, {} }
  elseif gives_up then
    redis.call('DEL', leader)
    duties[n] = { '0', {}, {} }
  else
    redis.call('SET', leader, worker, 'PX', lease_ms)
    local dead = ARGV[4 + n] == '1' and dead_of(heartbeats) or {}
    duties[n] = { '1', dead, anything_waits and redis.call('SRANDMEMBER', tenants, limit) or {} }
  end
end
return duties
