-- What everyone who watches a resource is told of it, numbered without a gap.

-- message: open; gives its number.
local function publish_update(state, channel, message)
  local seq = redis.call('HINCRBY', state, 'seq', '1')
  publish_of_resource(channel, message .. ',"seq":' .. int_to_string(seq) .. '}')
  return seq
end
