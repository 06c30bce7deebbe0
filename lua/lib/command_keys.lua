-- The keys that every script about a resource's commands gets. `Keys::of_commands` in broker/keys.rs builds them
-- in this order: five of the resource, then six of its tenant.

-- own, shared: where the two groups begin in KEYS.
local function command_keys(own, shared)
  return {
    state = KEYS[own], queue = KEYS[own + 1], commands = KEYS[own + 2], results = KEYS[own + 3],
    finished = KEYS[own + 4],
    ready = KEYS[shared], tenants = KEYS[shared + 1], backlog = KEYS[shared + 2], audit = KEYS[shared + 3],
    failed = KEYS[shared + 4], failed_at = KEYS[shared + 5],
  }
end
