-- What a command reached when it was applied: 'live' (the work of a job, in the worker that hosted it) or 'row' (the row
-- alone). A worker may die between that and the answer; whoever answers then can no longer see it. NULL: written by a
-- version before this column.
ALTER TABLE applied_commands ADD COLUMN control TEXT;
