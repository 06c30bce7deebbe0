-- How many jobs of each tenant have ended in which minute, kept where rows change: a page that shows the last hour would have to
-- count every job that ended in it. An end counts when it is written, whoever writes it, another system's plain SQL included; a
-- row that comes as one that has ended already counts nowhere, and an end that another system changes later counts as what it is
-- then: one more of the one, one fewer of the other. Those of a day are kept.
CREATE TABLE job_ends (
  tenant_id TEXT NOT NULL,
  minute INTEGER NOT NULL, -- since 1970
  status TEXT NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, minute, status)
) WITHOUT ROWID;

CREATE TRIGGER jobs_ended_u AFTER UPDATE OF status ON jobs
  WHEN NEW.status <> OLD.status AND NEW.status IN ('completed', 'failed', 'cancelled') BEGIN
  INSERT INTO job_ends (tenant_id, minute, status, n)
    VALUES (NEW.tenant_id, CAST(strftime('%s', 'now') AS INTEGER) / 60, NEW.status, 1)
    ON CONFLICT (tenant_id, minute, status) DO UPDATE SET n = n + 1;
  -- A day and an hour: the hour in which somebody may still be asking for the day. Mostly there is none.
  DELETE FROM job_ends WHERE tenant_id = NEW.tenant_id AND minute < CAST(strftime('%s', 'now') AS INTEGER) / 60 - 1500;
END;
CREATE TRIGGER jobs_unended_u AFTER UPDATE OF status ON jobs
  WHEN NEW.status <> OLD.status AND OLD.status IN ('completed', 'failed', 'cancelled') BEGIN
  INSERT INTO job_ends (tenant_id, minute, status, n)
    VALUES (OLD.tenant_id, CAST(strftime('%s', 'now') AS INTEGER) / 60, OLD.status, -1)
    ON CONFLICT (tenant_id, minute, status) DO UPDATE SET n = n - 1;
END;

-- What is read. PostgreSQL's has the ends in it that are not yet added up.
CREATE VIEW job_ends_by_minute AS SELECT tenant_id, minute, status, n FROM job_ends;
