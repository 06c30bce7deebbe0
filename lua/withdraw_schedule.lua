#!lua
-- Takes a scheduled command back. The request that it came with, if it had a name, is told so when it is sent again.
--
-- KEYS: 1 schedule, 2 schedules, 3 audit, 4 withdrawn (of the command), 5 request (a key that is not there, where it had no name)
-- ARGV: 1 deadline (Unix µs), 2 command, 3 resource, 4 audit entry, 5 id of this withdrawal
-- Returns: {outcome} 'withdrawn' | 'gone' (it was withdrawn by somebody else, or its time has come) | 'late';
--       the clock in µs last.
-- Safe to repeat: the same withdrawal again is answered as the first time, and every check comes before the first write.
-- When the clock is set forwards on the way: the deadline is over, and the sender sets a new one by the clock in the
-- answer. Backwards: the deadline is over that much later.

local schedule, schedules, audit, withdrawn, request = unpack(KEYS)
local deadline, command, resource, audit_entry, withdrawal = unpack(ARGV)
local now = now_us()

local function answer(outcome)
  return with_clock(now, outcome)
end

if redis.call('GET', withdrawn) == withdrawal then return answer('withdrawn') end
if redis.call('HEXISTS', schedules, command) == 0 then return answer('gone') end
if now > tonumber(deadline) then return answer('late') end

local said = decode_request(redis.call('GET', request))
if said and said.outcome == 'scheduled' and said.command_id == command then
  said.withdrawn = true
  redis.call('SET', request, cjson.encode(said), 'KEEPTTL')
end
redis.call('HDEL', schedules, command)
redis.call('ZREM', schedule, resource .. '|' .. command)
redis.call('XADD', audit, '*', 'event', 'withdrawn', 'at', int_to_string(math.floor(now / 1000)), 'entry', audit_entry)
redis.call('SET', withdrawn, withdrawal, 'EX', LOST_ANSWER_SECONDS)
return answer('withdrawn')
