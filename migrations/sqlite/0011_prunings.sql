-- What was removed from the audit trail because of its age: when, by whom, and what the clocks said then. One row for each
-- transaction of the removal, which moves audit_horizon to the same last_id.
CREATE TABLE audit_prunings (
  last_id INTEGER PRIMARY KEY,
  first_id INTEGER NOT NULL,
  -- The times of the first and the last row removed, and the time than which all of them were older.
  oldest TEXT NOT NULL,
  newest TEXT NOT NULL,
  older_than TEXT NOT NULL,
  -- The worker, what its clock said, and what Redis's clock said.
  worker_id TEXT NOT NULL,
  worker_clock TEXT NOT NULL,
  redis_clock TEXT NOT NULL
);
CREATE TRIGGER audit_prunings_i BEFORE INSERT ON audit_prunings WHEN NOT EXISTS (
    SELECT 1 FROM audit_horizon WHERE last_id = NEW.last_id AND NEW.first_id <= NEW.last_id)
    OR EXISTS (SELECT 1 FROM audit_prunings WHERE last_id >= NEW.first_id)
  BEGIN SELECT RAISE(ABORT, 'audit_prunings is append-only'); END;
CREATE TRIGGER audit_prunings_u BEFORE UPDATE ON audit_prunings BEGIN SELECT RAISE(ABORT, 'audit_prunings is append-only'); END;
CREATE TRIGGER audit_prunings_d BEFORE DELETE ON audit_prunings BEGIN SELECT RAISE(ABORT, 'audit_prunings is append-only'); END;
