-- The same as in migrations/postgres, in SQLite's words.
--
-- Numbers that plain SQL writes are kept where all arithmetic with them has room. SQLite goes on with a number that is not exact where one
-- is too large, and keeps a text in a column of numbers: such a run would be found by nobody who says which one it is.
--
-- A count, or the number of a run, lies between 0 and 2147483647. A job whose run has the last of these numbers is not started any more:
-- a worker writes into its row why. A fence that no claim can have had counts as none; a time that no clock shows is unknown.
CREATE TRIGGER jobs_in_range_i AFTER INSERT ON jobs WHEN
  NEW.run NOT BETWEEN 0 AND 2147483647 OR NEW.run <> CAST(NEW.run AS INTEGER)
  OR NEW.deaths NOT BETWEEN 0 AND 2147483647 OR NEW.retry_count NOT BETWEEN 0 AND 2147483647
  OR NEW.max_retries NOT BETWEEN 0 AND 2147483647 OR NEW.timeout_used_ms NOT BETWEEN 0 AND 9007199254740991
  OR NEW.fence NOT BETWEEN 0 AND 9007199254740991 OR NEW.status_since NOT BETWEEN 0 AND 9007199254740991
  OR NEW.running_ms NOT BETWEEN 0 AND 9007199254740991 OR NEW.paused_ms NOT BETWEEN 0 AND 9007199254740991 BEGIN
  UPDATE jobs SET run = MIN(MAX(CAST(run AS INTEGER), 0), 2147483647),
    deaths = MIN(MAX(CAST(deaths AS INTEGER), 0), 2147483647),
    retry_count = MIN(MAX(CAST(retry_count AS INTEGER), 0), 2147483647),
    max_retries = MIN(MAX(CAST(max_retries AS INTEGER), 0), 2147483647),
    timeout_used_ms = MIN(MAX(CAST(timeout_used_ms AS INTEGER), 0), 9007199254740991),
    fence = CASE WHEN fence BETWEEN 0 AND 9007199254740991 THEN fence ELSE 0 END,
    status_since = CASE WHEN status_since BETWEEN 0 AND 9007199254740991 THEN status_since ELSE NULL END,
    running_ms = CASE WHEN running_ms BETWEEN 0 AND 9007199254740991 THEN running_ms ELSE NULL END,
    paused_ms = CASE WHEN paused_ms BETWEEN 0 AND 9007199254740991 THEN paused_ms ELSE NULL END WHERE rowid = NEW.rowid;
END;
CREATE TRIGGER jobs_in_range_u AFTER UPDATE OF run, deaths, retry_count, max_retries, timeout_used_ms, fence, status_since, running_ms, paused_ms ON jobs WHEN
  NEW.run NOT BETWEEN 0 AND 2147483647 OR NEW.run <> CAST(NEW.run AS INTEGER)
  OR NEW.deaths NOT BETWEEN 0 AND 2147483647 OR NEW.retry_count NOT BETWEEN 0 AND 2147483647
  OR NEW.max_retries NOT BETWEEN 0 AND 2147483647 OR NEW.timeout_used_ms NOT BETWEEN 0 AND 9007199254740991
  OR NEW.fence NOT BETWEEN 0 AND 9007199254740991 OR NEW.status_since NOT BETWEEN 0 AND 9007199254740991
  OR NEW.running_ms NOT BETWEEN 0 AND 9007199254740991 OR NEW.paused_ms NOT BETWEEN 0 AND 9007199254740991 BEGIN
  UPDATE jobs SET run = MIN(MAX(CAST(run AS INTEGER), 0), 2147483647),
    deaths = MIN(MAX(CAST(deaths AS INTEGER), 0), 2147483647),
    retry_count = MIN(MAX(CAST(retry_count AS INTEGER), 0), 2147483647),
    max_retries = MIN(MAX(CAST(max_retries AS INTEGER), 0), 2147483647),
    timeout_used_ms = MIN(MAX(CAST(timeout_used_ms AS INTEGER), 0), 9007199254740991),
    fence = CASE WHEN fence BETWEEN 0 AND 9007199254740991 THEN fence ELSE 0 END,
    status_since = CASE WHEN status_since BETWEEN 0 AND 9007199254740991 THEN status_since ELSE NULL END,
    running_ms = CASE WHEN running_ms BETWEEN 0 AND 9007199254740991 THEN running_ms ELSE NULL END,
    paused_ms = CASE WHEN paused_ms BETWEEN 0 AND 9007199254740991 THEN paused_ms ELSE NULL END WHERE rowid = NEW.rowid;
END;

CREATE TRIGGER campaigns_in_range_i AFTER INSERT ON campaigns WHEN NEW.fence NOT BETWEEN 0 AND 9007199254740991 BEGIN
  UPDATE campaigns SET fence = 0 WHERE rowid = NEW.rowid;
END;
CREATE TRIGGER campaigns_in_range_u AFTER UPDATE OF fence ON campaigns WHEN NEW.fence NOT BETWEEN 0 AND 9007199254740991 BEGIN
  UPDATE campaigns SET fence = 0 WHERE rowid = NEW.rowid;
END;

-- Rows that are there. The triggers do what is to be done.
UPDATE jobs SET run = run WHERE
  run NOT BETWEEN 0 AND 2147483647 OR run <> CAST(run AS INTEGER)
  OR deaths NOT BETWEEN 0 AND 2147483647 OR retry_count NOT BETWEEN 0 AND 2147483647
  OR max_retries NOT BETWEEN 0 AND 2147483647 OR timeout_used_ms NOT BETWEEN 0 AND 9007199254740991
  OR fence NOT BETWEEN 0 AND 9007199254740991 OR status_since NOT BETWEEN 0 AND 9007199254740991
  OR running_ms NOT BETWEEN 0 AND 9007199254740991 OR paused_ms NOT BETWEEN 0 AND 9007199254740991;
UPDATE campaigns SET fence = fence WHERE fence NOT BETWEEN 0 AND 9007199254740991;
