-- Lists that are searched and sorted by the server, the time that jobs run and stand, what a job is a rerun of, and the names
-- of workers.

-- Since when the row has its status, and how long it ran and stood paused before that: Unix ms and ms, written by the
-- trigger below whoever changes the status. NULL: a part of it passed before this was recorded.
ALTER TABLE jobs ADD COLUMN status_since BIGINT;
ALTER TABLE jobs ADD COLUMN running_ms BIGINT DEFAULT 0;
ALTER TABLE jobs ADD COLUMN paused_ms BIGINT DEFAULT 0;
UPDATE jobs SET running_ms = NULL, paused_ms = NULL WHERE started_at IS NOT NULL OR status <> 'pending';

CREATE FUNCTION count_status_time() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  moment BIGINT := (EXTRACT(EPOCH FROM now()) * 1000)::BIGINT;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF OLD.status = 'running' THEN
      NEW.running_ms := OLD.running_ms + GREATEST(0, moment - OLD.status_since);
    ELSIF OLD.status = 'paused' THEN
      NEW.paused_ms := OLD.paused_ms + GREATEST(0, moment - OLD.status_since);
    END IF;
  END IF;
  NEW.status_since := moment;
  RETURN NEW;
END $$;
CREATE TRIGGER status_time_i BEFORE INSERT ON jobs FOR EACH ROW
  WHEN (NEW.status IN ('running', 'paused') AND NEW.status_since IS NULL) EXECUTE FUNCTION count_status_time();
CREATE TRIGGER status_time_u BEFORE UPDATE ON jobs FOR EACH ROW
  WHEN (NEW.status IS DISTINCT FROM OLD.status) EXECUTE FUNCTION count_status_time();

-- Since when the row has its host.
ALTER TABLE jobs ADD COLUMN hosted_at TIMESTAMPTZ;
CREATE FUNCTION note_hosting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.hosted_at := now();
  RETURN NEW;
END $$;
CREATE TRIGGER hosted_at_u BEFORE UPDATE ON jobs FOR EACH ROW
  WHEN (NEW.host IS NOT NULL AND NEW.host IS DISTINCT FROM OLD.host) EXECUTE FUNCTION note_hosting();
CREATE TRIGGER hosted_at_i BEFORE INSERT ON jobs FOR EACH ROW
  WHEN (NEW.host IS NOT NULL AND NEW.hosted_at IS NULL) EXECUTE FUNCTION note_hosting();

-- The job that this one is a rerun of, and the request that made it, if it had a name: USER REQUEST_ID.
ALTER TABLE jobs ADD COLUMN rerun_of TEXT;
ALTER TABLE jobs ADD COLUMN rerun_request TEXT;
CREATE INDEX jobs_reruns ON jobs (tenant_id, rerun_of, rowid) WHERE rerun_of IS NOT NULL;

-- Programs that host jobs, by the id that leases and rows have: who they are for people.
CREATE TABLE workers (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  -- Where it runs: the name of the machine, or of the container.
  machine TEXT NOT NULL,
  pid BIGINT NOT NULL,
  version TEXT NOT NULL,
  -- How many jobs it runs at once.
  slots BIGINT NOT NULL,
  -- Of a foreign process: its client software. Its id is that of its session, its machine is what it says.
  client TEXT,
  started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  seen_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX workers_by_name ON workers (name);

-- Lists: each begins with the tenant, then what is asked for, then the order. Jobs that have not ended have jobs_unended,
-- jobs of a campaign jobs_of_campaign, which gets the row number.
DROP INDEX jobs_newest;
DROP INDEX jobs_of_campaign;
CREATE INDEX jobs_of_campaign ON jobs (tenant_id, campaign_id, status, rowid) WHERE campaign_id IS NOT NULL;
CREATE INDEX jobs_ended_of_tenant ON jobs (tenant_id, status, rowid) WHERE status IN ('completed', 'failed', 'cancelled');
CREATE INDEX jobs_of_type ON jobs (tenant_id, job_type, status, rowid);
CREATE INDEX jobs_of_creator ON jobs (tenant_id, created_by, status, rowid) WHERE created_by IS NOT NULL;
CREATE INDEX jobs_by_creation ON jobs (tenant_id, (COALESCE(created_at, TIMESTAMPTZ '-infinity')), rowid);
CREATE INDEX jobs_by_update ON jobs (tenant_id, (COALESCE(updated_at, TIMESTAMPTZ '-infinity')), rowid);
-- By the time that they ran: of a running job that grows, but the moment at which it began does not.
CREATE INDEX jobs_by_running_time ON jobs (tenant_id, (COALESCE(running_ms, 0)), rowid) WHERE status <> 'running';
CREATE INDEX jobs_by_start ON jobs (tenant_id, (COALESCE(running_ms, 0) - COALESCE(status_since, 9007199254740991)), rowid)
  WHERE status = 'running';
CREATE INDEX campaigns_of_tenant ON campaigns (tenant_id, status, rowid);
CREATE INDEX campaigns_by_creation ON campaigns (tenant_id, (COALESCE(created_at, TIMESTAMPTZ '-infinity')), rowid);
CREATE INDEX campaigns_by_update ON campaigns (tenant_id, (COALESCE(updated_at, TIMESTAMPTZ '-infinity')), rowid);
