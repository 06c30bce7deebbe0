-- What must not hang on one Redis, because a failover may throw away what it knew.

-- Workers that run jobs say so here, too: one whose heartbeats a Redis does not have is not dead while this number grows.
CREATE TABLE worker_leases (
  worker_id TEXT NOT NULL PRIMARY KEY,
  renewals BIGINT NOT NULL,
  renewed_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- Who asked for what under which request id: a Redis that has lost the request takes it as a new command, which then does
-- nothing and is answered as the first was. NULL: the client gave no id, or a version before this column wrote the row.
ALTER TABLE applied_commands ADD COLUMN request TEXT;
CREATE UNIQUE INDEX applied_commands_by_request ON applied_commands (request) WHERE request IS NOT NULL;

-- The command, as long as its end is not in command_audit; then empty. NULL: a version before this column wrote the row.
ALTER TABLE applied_commands ADD COLUMN record TEXT;
CREATE INDEX applied_commands_unaudited ON applied_commands (at) WHERE record <> '';
INSERT INTO upkeep (task, due) VALUES ('audit', 0);
