-- Workers need no DELETE on command_audit: what is old is removed by this function, which runs with the rights of the
-- tables' owner. The triggers of command_audit decide, as ever, whether a row may go: it must lie behind audit_horizon.
CREATE FUNCTION remove_old_audit_rows(after_id BIGINT, last_id BIGINT) RETURNS BIGINT LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  gone BIGINT;
BEGIN
  DELETE FROM command_audit WHERE id > after_id AND id <= remove_old_audit_rows.last_id;
  GET DIAGNOSTICS gone = ROW_COUNT;
  RETURN gone;
END $$;
-- Such a function must not look for its table in a schema that its caller names.
DO $$
BEGIN
  EXECUTE format('ALTER FUNCTION remove_old_audit_rows(BIGINT, BIGINT) SET search_path = %I, pg_temp', current_schema());
END $$;
-- Whoever calls it can remove no more than the horizon permits, so that everybody may, until deploy/postgres/roles.sql says who.
