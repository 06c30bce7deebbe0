-- The same tables as in migrations/sqlite, in PostgreSQL's words.
-- Another system may put a row here with no more than it knows: every column has a default, or may be NULL.

CREATE TABLE jobs (
  id TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  campaign_id TEXT,
  job_type TEXT DEFAULT 'external',
  title TEXT,
  status TEXT NOT NULL DEFAULT 'pending'
    CHECK (status IN ('pending', 'running', 'paused', 'completed', 'failed', 'cancelled')),
  progress_percent DOUBLE PRECISION DEFAULT 0,
  items_total BIGINT,
  items_processed BIGINT DEFAULT 0,
  items_succeeded BIGINT DEFAULT 0,
  items_failed BIGINT DEFAULT 0,
  current_item TEXT,
  parameters JSONB DEFAULT '{}',
  result JSONB,
  error_message TEXT,
  max_retries BIGINT DEFAULT 0,
  retry_count BIGINT DEFAULT 0,
  created_by TEXT,
  cancelled_by TEXT,
  created_at TIMESTAMPTZ DEFAULT now(),
  started_at TIMESTAMPTZ,
  completed_at TIMESTAMPTZ,
  cancelled_at TIMESTAMPTZ,
  updated_at TIMESTAMPTZ DEFAULT now(),
  -- external: put here by another system; queued: for workers; attached: inside `wheelhouse run`.
  origin TEXT NOT NULL DEFAULT 'external' CHECK (origin IN ('external', 'queued', 'attached')),
  host TEXT,
  run BIGINT NOT NULL DEFAULT 0,
  fence BIGINT NOT NULL DEFAULT 0,
  paused_from TEXT,
  resume_point TEXT,
  run_after BIGINT,
  -- Orders and pages the rows, as SQLite's own rowid does.
  rowid BIGINT GENERATED ALWAYS AS IDENTITY,
  PRIMARY KEY (tenant_id, id)
);
-- The oldest waiting job of each type, tenant or campaign, one look for each (rowid last: oldest first).
CREATE INDEX jobs_waiting ON jobs (job_type, rowid)
  WHERE origin = 'queued' AND status = 'pending' AND campaign_id IS NULL;
CREATE INDEX jobs_waiting_of_tenant ON jobs (tenant_id, job_type, rowid)
  WHERE origin = 'queued' AND status = 'pending' AND campaign_id IS NULL;
CREATE INDEX jobs_waiting_of_campaign ON jobs (tenant_id, campaign_id, job_type, rowid)
  WHERE origin = 'queued' AND status = 'pending';
CREATE INDEX jobs_newest ON jobs (tenant_id, rowid);
CREATE INDEX jobs_hosted ON jobs (host) WHERE host IS NOT NULL;
CREATE INDEX jobs_of_campaign ON jobs (tenant_id, campaign_id, status);

CREATE TABLE campaigns (
  id TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  name TEXT,
  is_active BOOLEAN NOT NULL DEFAULT TRUE,
  status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'completed', 'cancelled')),
  created_by TEXT,
  cancelled_by TEXT,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  completed_at TIMESTAMPTZ,
  cancelled_at TIMESTAMPTZ,
  updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  fence BIGINT NOT NULL DEFAULT 0,
  rowid BIGINT GENERATED ALWAYS AS IDENTITY,
  PRIMARY KEY (tenant_id, id)
);

CREATE INDEX campaigns_active ON campaigns (tenant_id) WHERE is_active AND status = 'active';
CREATE INDEX campaigns_newest ON campaigns (tenant_id, rowid);

-- What a command did, so that the same command again does nothing and says the same.
CREATE TABLE applied_commands (
  command_id TEXT NOT NULL PRIMARY KEY,
  outcome TEXT NOT NULL,
  at TIMESTAMPTZ NOT NULL DEFAULT now()
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
CREATE TABLE permission_version (id BIGINT PRIMARY KEY CHECK (id = 1), version BIGINT NOT NULL);
INSERT INTO permission_version (id, version) VALUES (1, 1);
CREATE FUNCTION raise_permission_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE permission_version SET version = version + 1;
  RETURN NULL;
END $$;
CREATE TRIGGER raise_version AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON user_permissions
  FOR EACH STATEMENT EXECUTE FUNCTION raise_permission_version();
CREATE TRIGGER raise_version AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON role_permissions
  FOR EACH STATEMENT EXECUTE FUNCTION raise_permission_version();
CREATE TRIGGER raise_version AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON user_roles
  FOR EACH STATEMENT EXECUTE FUNCTION raise_permission_version();

CREATE TABLE command_audit (
  id BIGINT PRIMARY KEY,
  at TIMESTAMPTZ NOT NULL,
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
  attempts BIGINT,
  latency_ms BIGINT,
  address TEXT,
  token_id TEXT,
  stream_id TEXT NOT NULL,
  previous_hash TEXT NOT NULL,
  hash TEXT NOT NULL
);
CREATE INDEX command_audit_by_resource ON command_audit (tenant_id, resource_id);
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'command_audit is append-only';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON command_audit
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TABLE audit_head (id BIGINT PRIMARY KEY CHECK (id = 1), last_id BIGINT NOT NULL, hash TEXT NOT NULL);
INSERT INTO audit_head (id, last_id, hash) VALUES (1, 0, '');
CREATE TABLE audit_position (stream TEXT NOT NULL PRIMARY KEY, last TEXT NOT NULL);

-- What the built-in job type csv_import writes.
CREATE TABLE imported_rows (
  tenant_id TEXT NOT NULL,
  job_id TEXT NOT NULL,
  row_number BIGINT NOT NULL,
  fields TEXT NOT NULL,
  PRIMARY KEY (tenant_id, job_id, row_number)
);
