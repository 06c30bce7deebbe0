-- Timeouts, failed items, a queue that is fair to tenants, and what is done once for all workers.

-- Longest running time of one run in seconds, without the time it stands paused; none: no limit.
ALTER TABLE jobs ADD COLUMN timeout_seconds INTEGER CHECK (timeout_seconds > 0);

-- What a job could not do, item by item: one row for each item, with its last error.
CREATE TABLE failed_items (
  tenant_id TEXT NOT NULL,
  job_id TEXT NOT NULL,
  item TEXT NOT NULL,
  error TEXT NOT NULL,
  run INTEGER NOT NULL,
  at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  PRIMARY KEY (tenant_id, job_id, item)
);
-- SQLite puts the rowid last: the pages of one job, in the order in which its items failed.
CREATE INDEX failed_items_of_job ON failed_items (tenant_id, job_id);

-- Which tenants have jobs of a type that wait, and the oldest of each; the same for each campaign; how many of a
-- tenant's run. "run >= 0" and "fence >= 0" are always true: a query names with them the index that it is made for,
-- because PostgreSQL, while it has not yet counted the rows of a sudden crowd, takes any of them for equally good.
DROP INDEX jobs_waiting;
DROP INDEX jobs_waiting_of_tenant;
DROP INDEX jobs_waiting_of_campaign;
CREATE INDEX jobs_queue ON jobs (job_type, tenant_id)
  WHERE origin = 'queued' AND status = 'pending' AND run >= 0;
CREATE INDEX jobs_queue_of_campaign ON jobs (tenant_id, campaign_id, job_type)
  WHERE origin = 'queued' AND status = 'pending' AND fence >= 0;
CREATE INDEX jobs_running_of_tenant ON jobs (tenant_id) WHERE origin = 'queued' AND status = 'running';

CREATE INDEX applied_commands_by_age ON applied_commands (at);

-- What any one worker does now and then for all of them, and when it is due next (Unix ms).
CREATE TABLE upkeep (task TEXT NOT NULL PRIMARY KEY, due INTEGER NOT NULL);
INSERT INTO upkeep (task, due) VALUES ('campaigns', 0), ('commands', 0);
