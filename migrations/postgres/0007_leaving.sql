-- Workers that leave on purpose, hosts that have lost contact, and jobs that must not have company.

-- The run whose worker has said that it leaves. If it ends before it could hand the job back (killed after the time that
-- its process manager gives it), that is no death in this job.
ALTER TABLE jobs ADD COLUMN left_run BIGINT;

-- Since when the program that hosts an attached job has not been heard of; none: it is there, or the job has ended.
ALTER TABLE jobs ADD COLUMN contact_lost_at TIMESTAMPTZ;

-- The worker that makes room for this job, which is to run alone because workers have died in it.
ALTER TABLE jobs ADD COLUMN alone_in TEXT;
CREATE INDEX jobs_suspected ON jobs (job_type, rowid) WHERE origin = 'queued' AND status = 'pending' AND deaths > 0;
