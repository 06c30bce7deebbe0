-- How many jobs of each tenant have ended in which minute, kept where rows change: a page that shows the last hour would have to
-- count every job that ended in it. An end counts when it is written, whoever writes it, another system's plain SQL included; a
-- row that comes as one that has ended already counts nowhere, and an end that another system changes later counts as what it is
-- then: one more of the one, one fewer of the other. Those of a day are kept.
--
-- It costs no row of its own: the change of a count, which is written anyway, says the minute of the end, and whoever adds the changes
-- up adds these up as well. A worker of the version before does so too, since it calls the same function.
CREATE TABLE job_ends (
  tenant_id TEXT NOT NULL,
  minute BIGINT NOT NULL, -- since 1970
  status TEXT NOT NULL,
  n BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, minute, status)
) WITH (fillfactor = 50);
ALTER TABLE job_count_changes ADD COLUMN ended_minute BIGINT;

CREATE OR REPLACE FUNCTION count_changed_jobs() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO job_count_changes (tenant_id, campaign_id, status, n, ended_minute)
    SELECT tenant_id, campaign_id, status, SUM(n)::BIGINT,
      CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) / 60)::BIGINT END
    FROM (
      SELECT tenant_id, COALESCE(campaign_id, '') AS campaign_id, status, -1 AS n FROM changed_from
      UNION ALL SELECT tenant_id, COALESCE(campaign_id, ''), status, 1 FROM changed_to) c
    GROUP BY 1, 2, 3 HAVING SUM(n) <> 0;
  RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION forget_job_counts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  DELETE FROM job_count_changes;
  DELETE FROM job_counts;
  DELETE FROM job_ends;
  RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION add_up_job_counts(most BIGINT, tidy BOOLEAN) RETURNS BIGINT LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  taken BIGINT;
BEGIN
  WITH gone AS (
    DELETE FROM job_count_changes
      WHERE ctid = ANY (ARRAY(SELECT c.ctid FROM job_count_changes c LIMIT add_up_job_counts.most FOR UPDATE SKIP LOCKED))
      RETURNING tenant_id, campaign_id, status, n, ended_minute
  ), sums AS (
    SELECT tenant_id, campaign_id, status, SUM(n)::BIGINT AS n FROM gone GROUP BY 1, 2, 3
  ), added AS (
    INSERT INTO job_counts AS k (tenant_id, campaign_id, status, n)
      SELECT tenant_id, campaign_id, status, n FROM sums ORDER BY 1, 2, 3
      ON CONFLICT (tenant_id, campaign_id, status) DO UPDATE SET n = k.n + EXCLUDED.n
      RETURNING 1
  ), ended AS (
    INSERT INTO job_ends AS k (tenant_id, minute, status, n)
      SELECT tenant_id, ended_minute, status, SUM(n)::BIGINT FROM gone WHERE ended_minute IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
      ON CONFLICT (tenant_id, minute, status) DO UPDATE SET n = k.n + EXCLUDED.n
      RETURNING 1
  )
  SELECT COUNT(*) INTO taken FROM gone;
  -- A day and an hour: the hour in which somebody may still be asking for the day.
  DELETE FROM job_ends WHERE job_ends.minute < FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) / 60)::BIGINT - 1500;
  IF tidy THEN
    DELETE FROM job_counts WHERE job_counts.n = 0;
  END IF;
  RETURN taken;
END $$;
-- For the removal of what is older, whose ever it is.
CREATE INDEX job_ends_by_age ON job_ends (minute);
-- Such functions must not look for their tables in a schema that a caller names. A replaced one has lost that.
DO $$
DECLARE
  signature TEXT;
BEGIN
  FOREACH signature IN ARRAY ARRAY['count_changed_jobs()', 'forget_job_counts()', 'add_up_job_counts(BIGINT, BOOLEAN)'] LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', signature, current_schema());
  END LOOP;
END $$;

-- What is read: the sums, and the ends that are not yet in them.
CREATE VIEW job_ends_by_minute AS
  SELECT tenant_id, minute, status, n FROM job_ends
  UNION ALL SELECT tenant_id, ended_minute, status, n FROM job_count_changes WHERE ended_minute IS NOT NULL;
