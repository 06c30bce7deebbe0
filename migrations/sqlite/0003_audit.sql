-- The audit trail: scheduled commands, what it is searched by, and how long it is kept.

-- Unix ms; no part of the hash of rows that have none.
ALTER TABLE command_audit ADD COLUMN run_at INTEGER;
-- The batch that a command was a part of; likewise.
ALTER TABLE command_audit ADD COLUMN batch_id TEXT;

-- Each ends with the row id (SQLite puts it there by itself), in whose order everything is read.
DROP INDEX command_audit_by_resource;
CREATE INDEX command_audit_by_tenant ON command_audit (tenant_id);
CREATE INDEX command_audit_by_resource ON command_audit (tenant_id, resource_id);
CREATE INDEX command_audit_by_user ON command_audit (tenant_id, user_id);
CREATE INDEX command_audit_by_event ON command_audit (tenant_id, event);
-- Texts of times do not sort ("…:00Z" comes after "…:00.5Z") until all have as many digits.
CREATE INDEX command_audit_by_time ON command_audit (strftime('%Y-%m-%dT%H:%M:%fZ', at));

-- Everything up to this row is gone: it was older than the time for which rows are kept.
CREATE TABLE audit_horizon (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  last_id INTEGER NOT NULL,
  hash TEXT NOT NULL,
  older_than TEXT NOT NULL
);
INSERT INTO audit_horizon (id, last_id, hash, older_than) VALUES (1, 0, '', '1970-01-01T00:00:00.000Z');

-- It moves forward only, to a row that is there and old enough, and never within half a day of now.
CREATE TRIGGER audit_horizon_u BEFORE UPDATE ON audit_horizon WHEN NOT EXISTS (
    SELECT 1 FROM command_audit
    WHERE NEW.id = 1 AND id = NEW.last_id AND hash = NEW.hash AND NEW.last_id > OLD.last_id
      AND strftime('%Y-%m-%dT%H:%M:%fZ', at) < NEW.older_than
      AND NEW.older_than <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-12 hours'))
  BEGIN SELECT RAISE(ABORT, 'audit_horizon moves forward only, over rows that are old enough'); END;
CREATE TRIGGER audit_horizon_d BEFORE DELETE ON audit_horizon
  BEGIN SELECT RAISE(ABORT, 'audit_horizon moves forward only, over rows that are old enough'); END;
-- INSERT OR REPLACE deletes without the trigger for deletes.
CREATE TRIGGER audit_horizon_i BEFORE INSERT ON audit_horizon
  BEGIN SELECT RAISE(ABORT, 'audit_horizon moves forward only, over rows that are old enough'); END;

-- What lies behind the horizon may go; nothing else.
DROP TRIGGER command_audit_d;
CREATE TRIGGER command_audit_d BEFORE DELETE ON command_audit WHEN NOT EXISTS (
    SELECT 1 FROM audit_horizon
    WHERE OLD.id <= last_id AND strftime('%Y-%m-%dT%H:%M:%fZ', OLD.at) < older_than)
  BEGIN SELECT RAISE(ABORT, 'command_audit is append-only'); END;
