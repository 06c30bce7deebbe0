-- Workers that died while this job ran in them, since it last got further. No part of `retry_count`: an operator who
-- wants no retries still wants a job to outlive its worker.
ALTER TABLE jobs ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;

-- The unended jobs of a tenant by status, in the order of their making (SQLite puts the rowid last): for filters.
-- Without it they are searched among all that ever ended.
CREATE INDEX jobs_unended ON jobs (tenant_id, status) WHERE status IN ('pending', 'running', 'paused');
