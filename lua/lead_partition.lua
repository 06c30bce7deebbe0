#!lua
-- A worker leads a partition for a while longer, if no other one does, and sees what there is to do for a leader.
--
-- KEYS: 1 leader, 2 heartbeats, 3 tenants
-- ARGV: 1 worker, 2 lease (ms; 0 gives the partition up), 3 how long a heartbeat lasts (ms; 0: nothing is cut down to that),
--       4 tenants at most
-- Returns: {'1' where it leads, else '0'; workers whose heartbeats in this partition have ended; tenants with a `ready`}
-- Safe to repeat: a repeat lengthens the lease.
-- When the clock is set forwards: the lease ends early, and another worker may lead as well for a moment; both do the same,
-- and nothing that they do is done twice for it. Backwards: a lease that lasts longer than one lease from now on is cut down
-- to that, and so is a heartbeat.

local leader, heartbeats, tenants = unpack(KEYS)
local worker, lease_ms, ttl_ms, limit = unpack(ARGV)
local holder = redis.call('GET', leader)
if holder and holder ~= worker then
  if redis.call('PTTL', leader) > tonumber(lease_ms) and lease_ms ~= '0' then redis.call('PEXPIRE', leader, lease_ms) end
  return { '0', {}, {} }
end
if lease_ms == '0' then
  redis.call('DEL', leader)
  return { '0', {}, {} }
end
redis.call('SET', leader, worker, 'PX', lease_ms)
local now_ms = math.floor(now_us() / 1000)
if ttl_ms ~= '0' then
  local lasts = int_to_string(now_ms + tonumber(ttl_ms))
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', heartbeats, '(' .. lasts, '+inf')) do
    redis.call('ZADD', heartbeats, lasts, id)
  end
end
local dead = redis.call('ZRANGEBYSCORE', heartbeats, '-inf', '(' .. int_to_string(now_ms), 'LIMIT', '0', '100')
return { '1', dead, redis.call('SRANDMEMBER', tenants, limit) }
