-- How many jobs of each campaign are in each status, kept where rows change: to count those of a large campaign again for every
-- list and for every report of its progress would read all of them. Whoever changes a row, another system's plain SQL
-- included, has it counted. A job without a campaign counts under the campaign ''.
CREATE TABLE job_counts (
  tenant_id TEXT NOT NULL,
  campaign_id TEXT NOT NULL,
  status TEXT NOT NULL,
  n BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, campaign_id, status)
) WITH (fillfactor = 50);
-- Changes that are not yet added up. Each transaction only adds rows here: if it changed the sum itself, all jobs of a campaign
-- would wait for each other, and two transactions might wait for each other for ever.
CREATE TABLE job_count_changes (
  tenant_id TEXT NOT NULL,
  campaign_id TEXT NOT NULL,
  status TEXT NOT NULL,
  n BIGINT NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
CREATE INDEX job_count_changes_of_campaign ON job_count_changes (tenant_id, campaign_id, status);

-- With the rights of the tables' owner, so that whoever may write jobs need not be let near the counts.
CREATE FUNCTION count_new_jobs() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO job_count_changes (tenant_id, campaign_id, status, n)
    SELECT tenant_id, COALESCE(campaign_id, ''), status, COUNT(*) FROM changed GROUP BY 1, 2, 3;
  RETURN NULL;
END $$;
CREATE FUNCTION count_deleted_jobs() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO job_count_changes (tenant_id, campaign_id, status, n)
    SELECT tenant_id, COALESCE(campaign_id, ''), status, -COUNT(*) FROM changed GROUP BY 1, 2, 3;
  RETURN NULL;
END $$;
CREATE FUNCTION count_changed_job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO job_count_changes (tenant_id, campaign_id, status, n) VALUES
    (OLD.tenant_id, COALESCE(OLD.campaign_id, ''), OLD.status, -1),
    (NEW.tenant_id, COALESCE(NEW.campaign_id, ''), NEW.status, 1);
  RETURN NULL;
END $$;
CREATE FUNCTION forget_job_counts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  DELETE FROM job_count_changes;
  DELETE FROM job_counts;
  RETURN NULL;
END $$;
-- Adds up to `most` changes up and returns how many those were; two that do it at once take different ones. `tidy`: and removes
-- the rows of campaigns that have no jobs any more.
CREATE FUNCTION add_up_job_counts(most BIGINT, tidy BOOLEAN) RETURNS BIGINT LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  taken BIGINT;
BEGIN
  WITH gone AS (
    DELETE FROM job_count_changes
      WHERE ctid = ANY (ARRAY(SELECT c.ctid FROM job_count_changes c LIMIT add_up_job_counts.most FOR UPDATE SKIP LOCKED))
      RETURNING tenant_id, campaign_id, status, n
  ), sums AS (
    SELECT tenant_id, campaign_id, status, SUM(n)::BIGINT AS n FROM gone GROUP BY 1, 2, 3
  ), added AS (
    INSERT INTO job_counts AS k (tenant_id, campaign_id, status, n)
      SELECT tenant_id, campaign_id, status, n FROM sums ORDER BY 1, 2, 3
      ON CONFLICT (tenant_id, campaign_id, status) DO UPDATE SET n = k.n + EXCLUDED.n
      RETURNING 1
  )
  SELECT COUNT(*) INTO taken FROM gone;
  IF tidy THEN
    DELETE FROM job_counts WHERE job_counts.n = 0;
  END IF;
  RETURN taken;
END $$;
-- Such functions must not look for their tables in a schema that a caller names.
DO $$
DECLARE
  signature TEXT;
BEGIN
  FOREACH signature IN ARRAY ARRAY['count_new_jobs()', 'count_deleted_jobs()', 'count_changed_job()', 'forget_job_counts()',
    'add_up_job_counts(BIGINT, BOOLEAN)'] LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', signature, current_schema());
  END LOOP;
END $$;

-- From here on nobody else writes jobs until this migration is committed.
CREATE TRIGGER counted_i AFTER INSERT ON jobs REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION count_new_jobs();
CREATE TRIGGER counted_d AFTER DELETE ON jobs REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION count_deleted_jobs();
CREATE TRIGGER counted_u AFTER UPDATE OF tenant_id, campaign_id, status ON jobs FOR EACH ROW
  WHEN ((NEW.tenant_id, NEW.campaign_id, NEW.status) IS DISTINCT FROM (OLD.tenant_id, OLD.campaign_id, OLD.status))
  EXECUTE FUNCTION count_changed_job();
CREATE TRIGGER counted_t AFTER TRUNCATE ON jobs FOR EACH STATEMENT EXECUTE FUNCTION forget_job_counts();
INSERT INTO job_counts (tenant_id, campaign_id, status, n)
  SELECT tenant_id, COALESCE(campaign_id, ''), status, COUNT(*) FROM jobs GROUP BY 1, 2, 3;

-- What is read: the sums, and the changes that are not yet in them.
CREATE VIEW job_totals AS
  SELECT tenant_id, campaign_id, status, n FROM job_counts
  UNION ALL SELECT tenant_id, campaign_id, status, n FROM job_count_changes;

INSERT INTO upkeep (task, due) VALUES ('counts', 0);
