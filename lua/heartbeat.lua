#!lua
-- A worker that serves all tenants is alive for a while longer. It says so in its home partition alone.
--
-- KEYS: 1 heartbeats, 2 workers, 3 listeners, all of its home
-- ARGV: 1 worker, 2 ttl (ms), 3 how much longer it must be counted in `workers` (ms; 0: that, and the seat, are not looked at),
--       4 how many there may be in `listeners`, 5 whether it leads a partition ('1', else '0')
-- Returns: whether it is counted there for so long ('1', else '0': it has to be counted anew, in every partition), the clock (Unix
--       µs), and whether it is to hear the control channels of all tenants, as seat_of gives it (lib/seats.lua), '' if that is not
--       looked at. One whose heartbeats had ended is not counted.
-- Safe to repeat: it only moves the end.
-- When the clock is set forwards: all others count as dead until their next heartbeat, and the leader of their home takes
-- them out of `workers`; each sees that at its next heartbeat and is counted anew. Backwards: what lies further ahead than is
-- ever written is put right by the leader (lead_partition.lua), and here it is counted anew.

local heartbeats, workers, listeners = unpack(KEYS)
local worker, ttl_ms, counted_ms, seats, leads = unpack(ARGV)
local now = now_us()
local now_ms = math.floor(now / 1000)
local is_new = redis.call('ZADD', heartbeats, int_to_string(now_ms + tonumber(ttl_ms)), worker) == 1
if counted_ms == '0' then return { is_new and '0' or '1', int_to_string(now), '' } end
local counted = tonumber(redis.call('ZSCORE', workers, worker) or '0')
local is_counted = counted > now_ms + tonumber(counted_ms) and counted <= now_ms + MAX_AHEAD_MS
local alive = redis.call('ZCOUNT', workers, int_to_string(now_ms), '+inf')
local seat = seat_of(listeners, worker, alive, seats, ttl_ms, now_ms, leads == '1')
return { is_counted and '1' or '0', int_to_string(now), seat }
