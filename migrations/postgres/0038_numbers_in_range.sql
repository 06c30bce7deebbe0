-- Numbers that plain SQL writes are kept where all arithmetic with them has room. A row with a number at the end of its type's range
-- would make the statement fail that adds to it, and with it the claim, the list or the end of many rows.
--
-- A count, or the number of a run, lies between 0 and 2147483647. A job whose run has the last of these numbers is not started any more:
-- a worker writes into its row why. A fence that no claim can have had counts as none; a time that no clock shows is unknown.
CREATE FUNCTION keep_job_numbers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.run := LEAST(GREATEST(NEW.run, 0), 2147483647);
  NEW.deaths := LEAST(GREATEST(NEW.deaths, 0), 2147483647);
  NEW.retry_count := LEAST(GREATEST(NEW.retry_count, 0), 2147483647);
  NEW.max_retries := LEAST(GREATEST(NEW.max_retries, 0), 2147483647);
  NEW.timeout_used_ms := LEAST(GREATEST(NEW.timeout_used_ms, 0), 9007199254740991);
  IF NEW.fence NOT BETWEEN 0 AND 9007199254740991 THEN NEW.fence := 0; END IF;
  IF NEW.status_since NOT BETWEEN 0 AND 9007199254740991 THEN NEW.status_since := NULL; END IF;
  IF NEW.running_ms NOT BETWEEN 0 AND 9007199254740991 THEN NEW.running_ms := NULL; END IF;
  IF NEW.paused_ms NOT BETWEEN 0 AND 9007199254740991 THEN NEW.paused_ms := NULL; END IF;
  RETURN NEW;
END $$;
-- The last by its name of those that come before the row is written, so that it sees what they have made of it.
CREATE TRIGGER within_range BEFORE INSERT OR UPDATE ON jobs FOR EACH ROW WHEN (
  NEW.run NOT BETWEEN 0 AND 2147483647 OR NEW.deaths NOT BETWEEN 0 AND 2147483647
  OR NEW.retry_count NOT BETWEEN 0 AND 2147483647 OR NEW.max_retries NOT BETWEEN 0 AND 2147483647
  OR NEW.timeout_used_ms NOT BETWEEN 0 AND 9007199254740991 OR NEW.fence NOT BETWEEN 0 AND 9007199254740991
  OR NEW.status_since NOT BETWEEN 0 AND 9007199254740991 OR NEW.running_ms NOT BETWEEN 0 AND 9007199254740991
  OR NEW.paused_ms NOT BETWEEN 0 AND 9007199254740991)
  EXECUTE FUNCTION keep_job_numbers();

CREATE FUNCTION keep_campaign_numbers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.fence := 0;
  RETURN NEW;
END $$;
CREATE TRIGGER within_range BEFORE INSERT OR UPDATE ON campaigns FOR EACH ROW
  WHEN (NEW.fence NOT BETWEEN 0 AND 9007199254740991) EXECUTE FUNCTION keep_campaign_numbers();

-- Rows that are there. The triggers do what is to be done.
UPDATE jobs SET run = run WHERE
  run NOT BETWEEN 0 AND 2147483647 OR deaths NOT BETWEEN 0 AND 2147483647
  OR retry_count NOT BETWEEN 0 AND 2147483647 OR max_retries NOT BETWEEN 0 AND 2147483647
  OR timeout_used_ms NOT BETWEEN 0 AND 9007199254740991 OR fence NOT BETWEEN 0 AND 9007199254740991
  OR status_since NOT BETWEEN 0 AND 9007199254740991 OR running_ms NOT BETWEEN 0 AND 9007199254740991
  OR paused_ms NOT BETWEEN 0 AND 9007199254740991;
UPDATE campaigns SET fence = fence WHERE fence NOT BETWEEN 0 AND 9007199254740991;

-- A tenant's jobs that run in workers, which each look into the queue counts. In words of its own: by those of other indexes PostgreSQL takes
-- one in which the running jobs of other systems stand as well, until it has counted the rows.
DROP INDEX jobs_running_of_tenant;
CREATE INDEX jobs_running_of_tenant ON jobs (tenant_id) WHERE origin = 'queued' AND (status || '') = 'running';
