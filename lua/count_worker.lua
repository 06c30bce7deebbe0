#!lua
-- A worker is counted as alive for a while longer: in a partition, in a tenant, or in the fleet.
--
-- KEYS: 1 workers, tenant_workers or @workers, and with tenant_workers 2 tenant_listeners
-- ARGV: 1 worker, 2 ttl (ms), 3 how many there may be in tenant_listeners
-- Returns: how many there are in this set, some of whom may be dead, the clock (Unix ms), and of a tenant whether it is to hear its
--       control channels, as seat_of gives it (lib/seats.lua), else ''
-- Safe to repeat: it only moves the end. Workers long gone are swept out here.
-- When the clock is set forwards: all others count as dead until they are counted again. Nobody is buried for that: whoever
-- looks after dead workers wants to miss one for some seconds of its own clock.
-- Backwards: an entry further ahead than one ttl gets one ttl from now on. A live worker renews it within that time, and a
-- dead one is dead after it, instead of after the whole step. (A worker of the version before, whose ttl is shorter, cuts
-- the entries of this version like that, too; heartbeat.lua tells them, and they are counted anew.)

local workers, listeners = unpack(KEYS)
local worker, ttl_ms, seats = unpack(ARGV)
local now_ms = math.floor(now_us() / 1000)
local lasts = now_ms + tonumber(ttl_ms)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', workers, '(' .. int_to_string(lasts), '+inf')) do
  redis.call('ZADD', workers, lasts, id)
end
redis.call('ZADD', workers, lasts, worker)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now_ms - 60000)
redis.call('PEXPIRE', workers, 300000)
local count, seat = redis.call('ZCARD', workers), ''
if listeners then
  seat = seat_of(listeners, worker, redis.call('ZCOUNT', workers, now_ms, '+inf'), seats, ttl_ms, now_ms)
end
return { count, now_ms, seat }
