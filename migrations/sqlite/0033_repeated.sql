-- What is said again after a crash is known again.

-- The session's own number of the job whose run it is (`ref`): a session that never heard that it has the job asks again by it.
ALTER TABLE jobs ADD COLUMN remote_ref INTEGER;
-- The newest run whose end is recorded: an end that is said again, because nobody heard that it is there, counts once.
ALTER TABLE jobs ADD COLUMN ended_run INTEGER;
