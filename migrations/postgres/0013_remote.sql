-- Foreign workers: programs in any language that put their work under control through a worker.

-- The session (one foreign process) whose work the run of this row is, as TOKEN_NAME/SESSION. NULL: no foreign process has it.
-- The row's host is the worker that the session is connected to; the same session may take its run to another worker.
ALTER TABLE jobs ADD COLUMN remote_session TEXT;
