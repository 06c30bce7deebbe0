-- What was removed from the audit trail because of its age: when, by whom, and what the clocks said then. One row for each
-- transaction of the removal, which moves audit_horizon to the same last_id.
CREATE TABLE audit_prunings (
  last_id BIGINT PRIMARY KEY,
  first_id BIGINT NOT NULL,
  -- The times of the first and the last row removed, and the time than which all of them were older.
  oldest TIMESTAMPTZ NOT NULL,
  newest TIMESTAMPTZ NOT NULL,
  older_than TIMESTAMPTZ NOT NULL,
  -- The worker, what its clock said, and what Redis's clock said.
  worker_id TEXT NOT NULL,
  worker_clock TIMESTAMPTZ NOT NULL,
  redis_clock TIMESTAMPTZ NOT NULL
);
CREATE FUNCTION guard_audit_pruning() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  allowed BOOLEAN;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I.audit_horizon WHERE last_id = $1 AND $2 <= $1)
      AND NOT EXISTS (SELECT 1 FROM %I.audit_prunings WHERE last_id >= $2)', TG_TABLE_SCHEMA, TG_TABLE_SCHEMA)
    INTO allowed USING NEW.last_id, NEW.first_id;
  IF allowed THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'audit_prunings is append-only';
END $$;
CREATE TRIGGER recorded BEFORE INSERT ON audit_prunings FOR EACH ROW EXECUTE FUNCTION guard_audit_pruning();
CREATE FUNCTION refuse_pruning_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_prunings is append-only';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_prunings
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_pruning_change();
