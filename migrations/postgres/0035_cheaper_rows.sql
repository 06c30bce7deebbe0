-- What a job costs the database, from its row's making to its end.

-- Changes of the counts are noted once for each statement and not for each row: a worker claims dozens of jobs in one statement, and
-- writes the ends of as many in one. A statement that changes no status notes nothing.
CREATE FUNCTION count_changed_jobs() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO job_count_changes (tenant_id, campaign_id, status, n)
    SELECT tenant_id, campaign_id, status, SUM(n)::BIGINT FROM (
      SELECT tenant_id, COALESCE(campaign_id, '') AS campaign_id, status, -1 AS n FROM changed_from
      UNION ALL SELECT tenant_id, COALESCE(campaign_id, ''), status, 1 FROM changed_to) c
    GROUP BY 1, 2, 3 HAVING SUM(n) <> 0;
  RETURN NULL;
END $$;
DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION count_changed_jobs() SET search_path = %I, pg_temp', current_schema());
END $$;
DROP TRIGGER counted_u ON jobs;
CREATE TRIGGER counted_u AFTER UPDATE ON jobs REFERENCING OLD TABLE AS changed_from NEW TABLE AS changed_to
  FOR EACH STATEMENT EXECUTE FUNCTION count_changed_jobs();
DROP FUNCTION count_changed_job();

-- A job that waits and has not been touched is left out of indexes where another one has it anyway: src/store/job_indexes.rs.
-- What programs of the version before look into stays until none of them runs: 0036_former_indexes.sql.

-- The queue by type has two halves, so that a job without a campaign stands in one index of the queue instead of two.
CREATE INDEX jobs_queue_alone ON jobs (job_type, tenant_id, rowid)
  WHERE origin = 'queued' AND status = 'pending' AND run >= 0 AND campaign_id IS NULL;
CREATE INDEX jobs_queue_in_campaigns ON jobs (job_type, tenant_id, rowid)
  WHERE origin = 'queued' AND status = 'pending' AND run >= 0 AND campaign_id IS NOT NULL;
CREATE INDEX jobs_queue_by_campaign ON jobs (tenant_id, campaign_id, job_type, rowid)
  WHERE origin = 'queued' AND status = 'pending' AND fence >= 0 AND campaign_id IS NOT NULL;
-- Those that wait for a worker are found by their type along the queue.
CREATE INDEX jobs_of_type_not_queued ON jobs (tenant_id, job_type, status, rowid) WHERE (origin <> 'queued' OR status <> 'pending');
-- Those that wait and have not run yet, which have all run for no time; and the others.
CREATE INDEX jobs_not_run ON jobs (tenant_id, rowid) WHERE status = 'pending' AND COALESCE(running_ms, 0) = 0;
CREATE INDEX jobs_begun ON jobs (tenant_id, status, rowid)
  WHERE status IN ('pending', 'running', 'paused') AND (status <> 'pending' OR COALESCE(running_ms, 0) <> 0);
CREATE INDEX jobs_begun_by_running_time ON jobs (tenant_id, (COALESCE(running_ms, 0)), rowid)
  WHERE status <> 'running' AND (status <> 'pending' OR COALESCE(running_ms, 0) <> 0);
-- Those that nobody has changed since they were made have one time and not two.
CREATE INDEX jobs_untouched ON jobs (tenant_id, (COALESCE(created_at, TIMESTAMPTZ '-infinity')), rowid) WHERE updated_at = created_at;
CREATE INDEX jobs_touched_by_creation ON jobs (tenant_id, (COALESCE(created_at, TIMESTAMPTZ '-infinity')), rowid)
  WHERE (updated_at = created_at) IS NOT TRUE;
CREATE INDEX jobs_touched_by_update ON jobs (tenant_id, (COALESCE(updated_at, TIMESTAMPTZ '-infinity')), rowid)
  WHERE (updated_at = created_at) IS NOT TRUE;
