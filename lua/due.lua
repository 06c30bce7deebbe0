#!lua
-- Resources of a partition whose next command may be claimed now.
--
-- KEYS: 1 ready
-- ARGV: 1 limit
-- Returns: resources, longest waiting first
-- Safe to repeat: it reads.

return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', math.floor(now_us() / 1000), 'LIMIT', 0, ARGV[1])
