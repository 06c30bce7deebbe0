-- The audit trail: scheduled commands, what it is searched by, and how long it is kept.

-- Unix ms; no part of the hash of rows that have none.
ALTER TABLE command_audit ADD COLUMN run_at BIGINT;
-- The batch that a command was a part of; likewise.
ALTER TABLE command_audit ADD COLUMN batch_id TEXT;

-- Each ends with the row id, in whose order everything is read.
DROP INDEX command_audit_by_resource;
CREATE INDEX command_audit_by_tenant ON command_audit (tenant_id, id);
CREATE INDEX command_audit_by_resource ON command_audit (tenant_id, resource_id, id);
CREATE INDEX command_audit_by_user ON command_audit (tenant_id, user_id, id);
CREATE INDEX command_audit_by_event ON command_audit (tenant_id, event, id);
CREATE INDEX command_audit_by_time ON command_audit (at, id);

-- Everything up to this row is gone: it was older than the time for which rows are kept.
CREATE TABLE audit_horizon (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  last_id BIGINT NOT NULL,
  hash TEXT NOT NULL,
  older_than TIMESTAMPTZ NOT NULL
);
INSERT INTO audit_horizon (id, last_id, hash, older_than) VALUES (1, 0, '', '1970-01-01T00:00:00Z');

-- The tables are named with their schema in both: a temporary table of the same name must not stand in for one.

-- It moves forward only, to a row that is there and old enough, and never within half a day of now.
CREATE FUNCTION guard_audit_horizon() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  allowed BOOLEAN := FALSE;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I.command_audit WHERE id = $1 AND hash = $2 AND at < $3)', TG_TABLE_SCHEMA)
      INTO allowed USING NEW.last_id, NEW.hash, NEW.older_than;
    IF allowed AND NEW.id = 1 AND NEW.last_id > OLD.last_id AND NEW.older_than <= now() - INTERVAL '12 hours' THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'audit_horizon moves forward only, over rows that are old enough';
END $$;
CREATE TRIGGER forward_only BEFORE UPDATE ON audit_horizon FOR EACH ROW EXECUTE FUNCTION guard_audit_horizon();
CREATE TRIGGER one_row BEFORE INSERT OR DELETE OR TRUNCATE ON audit_horizon
  FOR EACH STATEMENT EXECUTE FUNCTION guard_audit_horizon();

-- What lies behind the horizon may go; nothing else.
CREATE FUNCTION guard_audit_delete() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  allowed BOOLEAN;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I.audit_horizon WHERE $1 <= last_id AND $2 < older_than)', TG_TABLE_SCHEMA)
    INTO allowed USING OLD.id, OLD.at;
  IF allowed THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'command_audit is append-only';
END $$;
DROP TRIGGER append_only ON command_audit;
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON command_audit
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER kept BEFORE DELETE ON command_audit FOR EACH ROW EXECUTE FUNCTION guard_audit_delete();
