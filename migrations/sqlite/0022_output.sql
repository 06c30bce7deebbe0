-- What the programs and the code of jobs print: the newest 1,000 lines of each job, over all of its runs.
CREATE TABLE job_output (
  tenant_id TEXT NOT NULL,
  job_id TEXT NOT NULL,
  -- Grows by one with each line of the job.
  line INTEGER NOT NULL,
  run INTEGER NOT NULL,
  -- Unix ms, by the worker.
  at INTEGER NOT NULL,
  -- stdout, stderr, log (said by job code), note (said by Wheelhouse).
  stream TEXT NOT NULL,
  text TEXT NOT NULL,
  -- Its end has not come: the line is replaced by what it becomes.
  is_open BOOLEAN NOT NULL DEFAULT FALSE CHECK (is_open IN (0, 1)),
  PRIMARY KEY (tenant_id, job_id, line)
) WITHOUT ROWID;
