-- What a job costs the database while it waits. It is left out of indexes where another one has it anyway:
-- src/store/job_indexes.rs. SQLite puts the rowid last in each.

-- What programs of the version before look into stays until none of them runs: 0036_former_indexes.sql.

-- The queue by type has two halves, so that a job without a campaign stands in one index of the queue instead of two.
CREATE INDEX jobs_queue_alone ON jobs (job_type, tenant_id)
  WHERE origin = 'queued' AND status = 'pending' AND run >= 0 AND campaign_id IS NULL;
CREATE INDEX jobs_queue_in_campaigns ON jobs (job_type, tenant_id)
  WHERE origin = 'queued' AND status = 'pending' AND run >= 0 AND campaign_id IS NOT NULL;
CREATE INDEX jobs_queue_by_campaign ON jobs (tenant_id, campaign_id, job_type)
  WHERE origin = 'queued' AND status = 'pending' AND fence >= 0 AND campaign_id IS NOT NULL;
-- Those that wait for a worker are found by their type along the queue.
CREATE INDEX jobs_of_type_not_queued ON jobs (tenant_id, job_type, status) WHERE (origin <> 'queued' OR status <> 'pending');
-- Those that wait and have not run yet, which have all run for no time; and the others.
CREATE INDEX jobs_not_run ON jobs (tenant_id) WHERE status = 'pending' AND COALESCE(running_ms, 0) = 0;
CREATE INDEX jobs_begun ON jobs (tenant_id, status)
  WHERE status IN ('pending', 'running', 'paused') AND (status <> 'pending' OR COALESCE(running_ms, 0) <> 0);
CREATE INDEX jobs_begun_by_running_time ON jobs (tenant_id, COALESCE(running_ms, 0))
  WHERE status <> 'running' AND (status <> 'pending' OR COALESCE(running_ms, 0) <> 0);
-- Those that nobody has changed since they were made have one time and not two.
CREATE INDEX jobs_untouched ON jobs (tenant_id, COALESCE(strftime('%Y-%m-%dT%H:%M:%fZ', created_at), '')) WHERE updated_at = created_at;
CREATE INDEX jobs_touched_by_creation ON jobs (tenant_id, COALESCE(strftime('%Y-%m-%dT%H:%M:%fZ', created_at), ''))
  WHERE (updated_at = created_at) IS NOT TRUE;
CREATE INDEX jobs_touched_by_update ON jobs (tenant_id, COALESCE(strftime('%Y-%m-%dT%H:%M:%fZ', updated_at), ''))
  WHERE (updated_at = created_at) IS NOT TRUE;
