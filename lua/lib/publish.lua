-- What is published wakes, and the record is the truth: it stands, whatever this user may publish.
--
-- PUBLISHED_CHANNELS (`redis.published_channels`) says where: 'plain', on the contract's channels, which a cluster passes on to all its
-- servers; 'sharded', on a channel of the partition, which stays with the servers that have it; or 'both'.

local SHARD = PUBLISHED_CHANNELS ~= 'plain' and string.match(KEYS[1], '^wh:{%d+}:') .. '@channel:'

-- for_all: what those hear by who hear it of all tenants. On the sharded channel of that name each message comes with its channel before it.
local function publish(channel, message, for_all)
  if PUBLISHED_CHANNELS ~= 'sharded' then redis.pcall('PUBLISH', channel, message) end
  if SHARD then
    redis.pcall('SPUBLISH', SHARD .. channel, message)
    if for_all then redis.pcall('SPUBLISH', SHARD .. for_all, channel .. '\n' .. message) end
  end
end

-- On a resource's channel of updates or of replies.
local function publish_of_resource(channel, message)
  publish(channel, message, SHARD and '*:' .. string.match(channel, '^[^:]*:(%l+):') .. ':*')
end

-- On a tenant's control channel.
local function publish_control(channel, message)
  publish(channel, message, SHARD and '*' .. string.match(channel, ':.*'))
end
