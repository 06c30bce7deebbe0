-- How much of its timeout_seconds a job's try has used in the runs before this one, in ms. A run that goes on in another
-- worker has what is left; the next try after a failure has the whole time again.
ALTER TABLE jobs ADD COLUMN timeout_used_ms INTEGER NOT NULL DEFAULT 0;
