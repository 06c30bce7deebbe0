#!lua
-- Takes a scheduled command back.
--
-- KEYS: 1 schedule, 2 schedules, 3 audit, 4 withdrawn (of the command)
-- ARGV: 1 deadline (Unix µs), 2 command, 3 resource, 4 audit entry, 5 id of this withdrawal
-- Returns: {outcome} 'withdrawn' | 'gone' (it was withdrawn by somebody else, or its time has come) | 'late';
--       the clock in µs last.
-- Safe to repeat: the same withdrawal again is answered as the first time, and every check comes before the first write.
-- When the clock is set forwards on the way: the deadline is over, and the sender sets a new one by the clock in the
-- answer. Backwards: the deadline is over that much later.

local now = now_us()

local function answer(outcome)
  return with_clock(now, outcome)
end

if redis.call('GET', KEYS[4]) == ARGV[5] then return answer('withdrawn') end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return answer('gone') end
if now > tonumber(ARGV[1]) then return answer('late') end

redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[1], ARGV[3] .. '|' .. ARGV[2])
redis.call('XADD', KEYS[3], '*', 'event', 'withdrawn', 'at', int_to_string(math.floor(now / 1000)), 'entry', ARGV[4])
redis.call('SET', KEYS[4], ARGV[5], 'EX', LOST_ANSWER_SECONDS)
return answer('withdrawn')
