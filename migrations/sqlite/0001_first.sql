-- The same tables as in migrations/postgres, in SQLite's words. Times are RFC 3339 texts in UTC.
-- Another system may put a row here with no more than it knows: every column has a default, or may be NULL.

CREATE TABLE jobs (
  id TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  campaign_id TEXT,
  job_type TEXT DEFAULT 'external',
  title TEXT,
  status TEXT NOT NULL DEFAULT 'pending'
    CHECK (status IN ('pending', 'running', 'paused', 'completed', 'failed', 'cancelled')),
  progress_percent REAL DEFAULT 0,
  items_total INTEGER,
  items_processed INTEGER DEFAULT 0,
  items_succeeded INTEGER DEFAULT 0,
  items_failed INTEGER DEFAULT 0,
  current_item TEXT,
  parameters TEXT DEFAULT '{}',
  result TEXT,
  error_message TEXT,
  max_retries INTEGER DEFAULT 0,
  retry_count INTEGER DEFAULT 0,
  created_by TEXT,
  cancelled_by TEXT,
  created_at TEXT DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  started_at TEXT,
  completed_at TEXT,
  cancelled_at TEXT,
  updated_at TEXT DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  -- external: put here by another system; queued: for workers; attached: inside `wheelhouse run`.
  origin TEXT NOT NULL DEFAULT 'external' CHECK (origin IN ('external', 'queued', 'attached')),
  host TEXT,
  run INTEGER NOT NULL DEFAULT 0,
  fence INTEGER NOT NULL DEFAULT 0,
  paused_from TEXT,
  resume_point TEXT,
  run_after INTEGER,
  PRIMARY KEY (tenant_id, id)
);
-- The oldest waiting job of each type, tenant or campaign, one look for each (SQLite puts the rowid last: oldest first).
CREATE INDEX jobs_waiting ON jobs (job_type)
  WHERE origin = 'queued' AND status = 'pending' AND campaign_id IS NULL;
CREATE INDEX jobs_waiting_of_tenant ON jobs (tenant_id, job_type)
  WHERE origin = 'queued' AND status = 'pending' AND campaign_id IS NULL;
CREATE INDEX jobs_waiting_of_campaign ON jobs (tenant_id, campaign_id, job_type)
  WHERE origin = 'queued' AND status = 'pending';
CREATE INDEX jobs_newest ON jobs (tenant_id);
CREATE INDEX jobs_hosted ON jobs (host) WHERE host IS NOT NULL;
CREATE INDEX jobs_of_campaign ON jobs (tenant_id, campaign_id, status);

CREATE TABLE campaigns (
  id TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  name TEXT,
  is_active BOOLEAN NOT NULL DEFAULT TRUE CHECK (is_active IN (0, 1)),
  status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'completed', 'cancelled')),
  created_by TEXT,
  cancelled_by TEXT,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  completed_at TEXT,
  cancelled_at TEXT,
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  fence INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, id)
);

CREATE INDEX campaigns_active ON campaigns (tenant_id) WHERE is_active AND status = 'active';
CREATE INDEX campaigns_newest ON campaigns (tenant_id);

-- What a command did, so that the same command again does nothing and says the same.
CREATE TABLE applied_commands (
  command_id TEXT NOT NULL PRIMARY KEY,
  outcome TEXT NOT NULL,
  at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE TABLE user_permissions (
  user_id TEXT NOT NULL,
  permission TEXT NOT NULL,
  PRIMARY KEY (user_id, permission)
);
CREATE TABLE roles (id TEXT NOT NULL PRIMARY KEY, name TEXT);
CREATE TABLE role_permissions (
  role_id TEXT NOT NULL,
  permission TEXT NOT NULL,
  PRIMARY KEY (role_id, permission)
);
CREATE TABLE user_roles (
  user_id TEXT NOT NULL,
  role_id TEXT NOT NULL,
  PRIMARY KEY (user_id, role_id)
);

-- Grows with every change of any permission, also by plain SQL: gateways watch it.
CREATE TABLE permission_version (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL);
INSERT INTO permission_version (id, version) VALUES (1, 1);
CREATE TRIGGER user_permissions_i AFTER INSERT ON user_permissions BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER user_permissions_u AFTER UPDATE ON user_permissions BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER user_permissions_d AFTER DELETE ON user_permissions BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER role_permissions_i AFTER INSERT ON role_permissions BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER role_permissions_u AFTER UPDATE ON role_permissions BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER role_permissions_d AFTER DELETE ON role_permissions BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER user_roles_i AFTER INSERT ON user_roles BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER user_roles_u AFTER UPDATE ON user_roles BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER user_roles_d AFTER DELETE ON user_roles BEGIN UPDATE permission_version SET version = version + 1; END;

CREATE TABLE command_audit (
  id INTEGER PRIMARY KEY,
  at TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  resource_kind TEXT NOT NULL,
  resource_id TEXT NOT NULL,
  action TEXT NOT NULL,
  command_id TEXT,
  request_id TEXT,
  event TEXT NOT NULL,
  reason TEXT,
  outcome TEXT,
  worker_id TEXT,
  attempts INTEGER,
  latency_ms INTEGER,
  address TEXT,
  token_id TEXT,
  stream_id TEXT NOT NULL,
  previous_hash TEXT NOT NULL,
  hash TEXT NOT NULL
);
CREATE INDEX command_audit_by_resource ON command_audit (tenant_id, resource_id);
-- INSERT OR REPLACE deletes without the trigger for deletes.
CREATE TRIGGER command_audit_i BEFORE INSERT ON command_audit WHEN EXISTS (SELECT 1 FROM command_audit WHERE id = NEW.id)
  BEGIN SELECT RAISE(ABORT, 'command_audit is append-only'); END;
CREATE TRIGGER command_audit_u BEFORE UPDATE ON command_audit BEGIN SELECT RAISE(ABORT, 'command_audit is append-only'); END;
CREATE TRIGGER command_audit_d BEFORE DELETE ON command_audit BEGIN SELECT RAISE(ABORT, 'command_audit is append-only'); END;
CREATE TABLE audit_head (id INTEGER PRIMARY KEY CHECK (id = 1), last_id INTEGER NOT NULL, hash TEXT NOT NULL);
INSERT INTO audit_head (id, last_id, hash) VALUES (1, 0, '');
CREATE TABLE audit_position (stream TEXT NOT NULL PRIMARY KEY, last TEXT NOT NULL);

-- What the built-in job type csv_import writes.
CREATE TABLE imported_rows (
  tenant_id TEXT NOT NULL,
  job_id TEXT NOT NULL,
  row_number INTEGER NOT NULL,
  fields TEXT NOT NULL,
  PRIMARY KEY (tenant_id, job_id, row_number)
);
