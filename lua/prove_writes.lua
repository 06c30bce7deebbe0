#!lua
-- Does once what all scripts and all other calls do, on keys of its own: whether this server, now, for this user,
-- does what a command needs. It has the flags of submit_command (none), so that Redis refuses it for the same reasons:
-- memory (OOM), replicas (NOREPLICAS), the disk (MISCONF), a replica (READONLY), a right (NOPERM). A test compares the
-- commands here with those of all other scripts.
--
-- KEYS: 1 hash, 2 list, 3 sorted set, 4 set, 5 stream, 6 string: of this purpose alone; 7, if given, a string that says that a
--       program of the same user has had all of it done lately
-- ARGV: 1 channel, of the form of a resource's, 2 'all', 'one' for a single write, or 'shared': 'one' where the string says so, else
--       'all', 3 with a seventh key for how long it says so (ms)
-- Returns: 1 | Redis's error
-- Safe to repeat: what is left of it goes by itself.
-- When the clock is set forwards: all of it is done once more. Backwards: a string that lasts longer than is ever written says nothing.

local hash, list, sorted, set, stream, text, done = unpack(KEYS)
local channel, extent, done_ms = unpack(ARGV)

-- As `publish` does, and says what Redis refuses.
local function try_to_publish()
  if PUBLISHED_CHANNELS ~= 'sharded' then redis.call('PUBLISH', channel, '') end
  if SHARD then redis.call('SPUBLISH', SHARD .. channel, '') end
end

if extent == 'shared' then
  local left = redis.call('PTTL', done)
  if left > 0 and left <= tonumber(done_ms) then extent = 'one' end
end
if extent == 'one' then
  redis.call('SET', text, '1', 'PX', '10000')
  try_to_publish()
  return 1
end

redis.call('TIME')
redis.call('DEL', hash, list, sorted, set, stream, text)

redis.call('HSET', hash, 'a', '1')
redis.call('PEXPIRE', hash, '10000')
redis.call('HGET', hash, 'a')
redis.call('HMGET', hash, 'a', 'b')
redis.call('HGETALL', hash)
redis.call('HLEN', hash)
redis.call('HEXISTS', hash, 'a')
redis.call('HINCRBY', hash, 'a', '1')
redis.call('HDEL', hash, 'a')

redis.call('RPUSH', list, 'a')
redis.call('LPUSH', list, 'b')
redis.call('EXPIRE', list, '10')
redis.call('LLEN', list)
redis.call('LINDEX', list, '0')
redis.call('LSET', list, '0', 'b')
redis.call('LRANGE', list, '0', '-1')
redis.call('LTRIM', list, '0', '9')
redis.call('LREM', list, '1', 'a')
redis.call('LPOP', list)

redis.call('ZADD', sorted, '1', 'a')
redis.call('PEXPIRE', sorted, '10000')
redis.call('ZCARD', sorted)
redis.call('ZSCORE', sorted, 'a')
redis.call('ZCOUNT', sorted, '-inf', '+inf')
redis.call('ZRANGE', sorted, '0', '-1')
redis.call('ZREVRANGE', sorted, '0', '-1')
redis.call('ZRANGEBYSCORE', sorted, '-inf', '+inf')
redis.call('ZREMRANGEBYSCORE', sorted, '-inf', '0')
redis.call('ZREM', sorted, 'a')

redis.call('SADD', set, 'a')
redis.call('PEXPIRE', set, '10000')
redis.call('SRANDMEMBER', set, '1')
redis.call('SREM', set, 'a')

local id = redis.call('XADD', stream, '*', 'a', '1')
redis.call('PEXPIRE', stream, '10000')
redis.call('XLEN', stream)
redis.call('XRANGE', stream, '-', '+', 'COUNT', '1')
redis.call('XDEL', stream, id)

redis.call('SET', text, '1', 'PX', '10000')
redis.call('GET', text)
redis.call('MGET', text)
redis.call('INCR', text)
redis.call('DECR', text)
redis.call('PTTL', text)
redis.call('EXISTS', text)

redis.call('DEL', hash, list, sorted, set, stream, text)
if done then redis.call('SET', done, '1', 'PX', done_ms) end
try_to_publish()
return 1
