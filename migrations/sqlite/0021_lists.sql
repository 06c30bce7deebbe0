-- Lists that are searched and sorted by the server, the time that jobs run and stand, what a job is a rerun of, and the names
-- of workers.

-- Since when the row has its status, and how long it ran and stood paused before that: Unix ms and ms, written by the
-- triggers below whoever changes the status. NULL: a part of it passed before this was recorded.
ALTER TABLE jobs ADD COLUMN status_since INTEGER;
ALTER TABLE jobs ADD COLUMN running_ms INTEGER DEFAULT 0;
ALTER TABLE jobs ADD COLUMN paused_ms INTEGER DEFAULT 0;
UPDATE jobs SET running_ms = NULL, paused_ms = NULL WHERE started_at IS NOT NULL OR status <> 'pending';

CREATE TRIGGER jobs_status_i AFTER INSERT ON jobs WHEN NEW.status IN ('running', 'paused') AND NEW.status_since IS NULL BEGIN
  UPDATE jobs SET status_since = CAST((julianday('now') - 2440587.5) * 86400000 + 0.5 AS INTEGER) WHERE rowid = NEW.rowid;
END;
CREATE TRIGGER jobs_status_u AFTER UPDATE OF status ON jobs WHEN NEW.status <> OLD.status BEGIN
  UPDATE jobs SET status_since = CAST((julianday('now') - 2440587.5) * 86400000 + 0.5 AS INTEGER),
    running_ms = running_ms + CASE WHEN OLD.status = 'running' THEN
      MAX(0, CAST((julianday('now') - 2440587.5) * 86400000 + 0.5 AS INTEGER) - OLD.status_since) ELSE 0 END,
    paused_ms = paused_ms + CASE WHEN OLD.status = 'paused' THEN
      MAX(0, CAST((julianday('now') - 2440587.5) * 86400000 + 0.5 AS INTEGER) - OLD.status_since) ELSE 0 END
  WHERE rowid = NEW.rowid;
END;

-- Since when the row has its host.
ALTER TABLE jobs ADD COLUMN hosted_at TEXT;
CREATE TRIGGER jobs_host_u AFTER UPDATE OF host ON jobs WHEN NEW.host IS NOT NULL AND NEW.host IS NOT OLD.host BEGIN
  UPDATE jobs SET hosted_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE rowid = NEW.rowid;
END;
CREATE TRIGGER jobs_host_i AFTER INSERT ON jobs WHEN NEW.host IS NOT NULL AND NEW.hosted_at IS NULL BEGIN
  UPDATE jobs SET hosted_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE rowid = NEW.rowid;
END;

-- The job that this one is a rerun of, and the request that made it, if it had a name: USER REQUEST_ID.
ALTER TABLE jobs ADD COLUMN rerun_of TEXT;
ALTER TABLE jobs ADD COLUMN rerun_request TEXT;
CREATE INDEX jobs_reruns ON jobs (tenant_id, rerun_of) WHERE rerun_of IS NOT NULL;

-- Programs that host jobs, by the id that leases and rows have: who they are for people.
CREATE TABLE workers (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  -- Where it runs: the name of the machine, or of the container.
  machine TEXT NOT NULL,
  pid INTEGER NOT NULL,
  version TEXT NOT NULL,
  -- How many jobs it runs at once.
  slots INTEGER NOT NULL,
  -- Of a foreign process: its client software. Its id is that of its session, its machine is what it says.
  client TEXT,
  started_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  seen_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE INDEX workers_by_name ON workers (name);

-- Lists: each begins with the tenant, then what is asked for, then the order. SQLite puts the rowid last, in which rows lie as
-- they were made. Jobs that have not ended have jobs_unended (tenant_id, status), jobs of a campaign jobs_of_campaign.
DROP INDEX jobs_newest;
CREATE INDEX jobs_ended_of_tenant ON jobs (tenant_id, status) WHERE status IN ('completed', 'failed', 'cancelled');
CREATE INDEX jobs_of_type ON jobs (tenant_id, job_type, status);
CREATE INDEX jobs_of_creator ON jobs (tenant_id, created_by, status) WHERE created_by IS NOT NULL;
-- Texts of times do not sort until all have as many digits.
CREATE INDEX jobs_by_creation ON jobs (tenant_id, COALESCE(strftime('%Y-%m-%dT%H:%M:%fZ', created_at), ''));
CREATE INDEX jobs_by_update ON jobs (tenant_id, COALESCE(strftime('%Y-%m-%dT%H:%M:%fZ', updated_at), ''));
-- By the time that they ran: of a running job that grows, but the moment at which it began does not.
CREATE INDEX jobs_by_running_time ON jobs (tenant_id, COALESCE(running_ms, 0)) WHERE status <> 'running';
CREATE INDEX jobs_by_start ON jobs (tenant_id, COALESCE(running_ms, 0) - COALESCE(status_since, 9007199254740991))
  WHERE status = 'running';
CREATE INDEX campaigns_of_tenant ON campaigns (tenant_id, status);
CREATE INDEX campaigns_by_creation ON campaigns (tenant_id, COALESCE(strftime('%Y-%m-%dT%H:%M:%fZ', created_at), ''));
CREATE INDEX campaigns_by_update ON campaigns (tenant_id, COALESCE(strftime('%Y-%m-%dT%H:%M:%fZ', updated_at), ''));
