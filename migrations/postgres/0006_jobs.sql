-- Long errors, campaigns that stay open, status messages that are owed, and ended jobs that may be deleted.

-- The whole text of an error that is too long for `error_message`, which then holds its beginning and its end.
ALTER TABLE jobs ADD COLUMN error_detail TEXT;

-- Jobs are still being added: the campaign is not completed when all of those it has so far have ended. Rows of other
-- systems, and campaigns that were there before, are completed by their last job, as ever.
ALTER TABLE campaigns ADD COLUMN is_open BOOLEAN NOT NULL DEFAULT FALSE;
-- When it was told to close: from then on it takes no more jobs. NULL where it was not.
ALTER TABLE campaigns ADD COLUMN closed_at TIMESTAMPTZ;

-- Status messages that somebody has to publish, because a row changed in the same transaction. Whoever publishes
-- deletes the row; what a dead worker has left here, another one publishes.
CREATE TABLE announcements (
  tenant_id TEXT NOT NULL,
  resource_kind TEXT NOT NULL CHECK (resource_kind IN ('job', 'campaign')),
  resource_id TEXT NOT NULL,
  -- status: of the resource itself; jobs: of every cancelled job of this campaign.
  about TEXT NOT NULL CHECK (about IN ('status', 'jobs')),
  -- The run of the job that ended, so that an older one's publisher does not delete a newer one.
  run BIGINT NOT NULL DEFAULT 0,
  -- For jobs: published up to this row.
  told_to BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, resource_kind, resource_id, about, run)
);

-- Ended jobs by the time of their end, for deleting old ones.
CREATE INDEX jobs_ended ON jobs ((COALESCE(completed_at, cancelled_at, updated_at)))
  WHERE status IN ('completed', 'failed', 'cancelled');

INSERT INTO upkeep (task, due) VALUES ('jobs', 0);
