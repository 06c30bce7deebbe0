-- Indexes that only programs of the version before look into, SQLite by their names: `wheelhouse migrate --finish`, once none of
-- them runs. 0035_cheaper_rows.sql has made those that take their place.
DROP INDEX jobs_queue;
DROP INDEX jobs_queue_of_campaign;
DROP INDEX jobs_of_type;
DROP INDEX jobs_unended;
DROP INDEX jobs_by_running_time;
DROP INDEX jobs_by_creation;
DROP INDEX jobs_by_update;
