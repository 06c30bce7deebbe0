-- Roles with the least that each program needs. A superuser runs this in Wheelhouse's database, once before the first
-- `wheelhouse migrate` and again after each later one, because a migration may bring tables that it did not know:
--
--   psql -v ON_ERROR_STOP=1 -d wheelhouse -f deploy/postgres/roles.sql
--
-- It may be run as often as you like. The roles can log in and have no password: give each one (\password), or let
-- client certificates say who they are. Nothing here takes a right away from other roles but from PUBLIC.
--
--   wheelhouse_owner    owns the tables; only `wheelhouse migrate` runs as this role
--   wheelhouse_gateway  `wheelhouse gateway`
--   wheelhouse_worker   `wheelhouse worker`, `wheelhouse run` and workers of your own
--   wheelhouse_admin    `wheelhouse grant`, `revoke`, `grants`, `revoke-token`, `revoke-user`, `audit`
--   wheelhouse_reader   `wheelhouse audit`, and a person at psql who looks

-- The roles. Two databases of one server may be prepared at the same moment: whoever comes second finds them there.
DO $$
DECLARE
  wanted TEXT;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['owner', 'gateway', 'worker', 'admin', 'reader'] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I LOGIN', 'wheelhouse_' || wanted);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END LOOP;
END $$;

-- Nobody but the owner makes tables, functions or temporary tables here.
DO $$
BEGIN
  EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CREATE ON DATABASE %I TO wheelhouse_owner', current_database());
END $$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO wheelhouse_owner;
GRANT USAGE ON SCHEMA public TO wheelhouse_gateway, wheelhouse_worker, wheelhouse_admin, wheelhouse_reader;

-- Who may do what with which table. A table that is not there yet is passed over. `command_audit` takes INSERT alone:
-- rows older than audit.keep_days are removed by a function of the owner's, which checks that they are.
DO $$
DECLARE
  given RECORD;
BEGIN
  FOR given IN SELECT * FROM (VALUES
    ('_sqlx_migrations', 'gateway, worker, admin, reader', 'SELECT'),

    ('jobs', 'gateway', 'SELECT, INSERT'),
    ('jobs', 'worker', 'SELECT, INSERT, UPDATE, DELETE'),
    ('jobs', 'reader', 'SELECT'),
    -- Kept by the triggers of jobs, with their owner's rights.
    ('job_totals', 'gateway, worker, reader', 'SELECT'),
    ('job_counts', 'reader', 'SELECT'),
    ('job_count_changes', 'reader', 'SELECT'),
    ('job_ends_by_minute', 'gateway, reader', 'SELECT'),
    ('job_ends', 'reader', 'SELECT'),
    ('campaigns', 'gateway', 'SELECT, INSERT'),
    -- A gateway closes campaigns, which completes one whose jobs have all ended.
    ('campaigns', 'gateway', 'UPDATE (is_open, closed_at, status, is_active, completed_at, updated_at)'),
    ('campaigns', 'worker', 'SELECT, INSERT, UPDATE, DELETE'),
    ('campaigns', 'reader', 'SELECT'),
    ('announcements', 'gateway, worker', 'SELECT, INSERT, UPDATE, DELETE'),
    ('announcements', 'reader', 'SELECT'),
    ('failed_items', 'worker', 'SELECT, INSERT, UPDATE, DELETE'),
    ('failed_items', 'gateway, reader', 'SELECT'),
    ('imported_rows', 'worker', 'SELECT, INSERT, DELETE'),
    ('imported_rows', 'reader', 'SELECT'),
    ('applied_commands', 'worker', 'SELECT, INSERT, UPDATE, DELETE'),
    -- A gateway looks there whether a request was carried out, while Redis cannot be asked.
    ('applied_commands', 'gateway, reader', 'SELECT'),
    ('worker_leases', 'worker', 'SELECT, INSERT, UPDATE, DELETE'),
    ('worker_leases', 'reader', 'SELECT'),
    ('job_output', 'worker', 'SELECT, INSERT, UPDATE, DELETE'),
    ('job_output', 'gateway, reader', 'SELECT'),
    ('workers', 'worker', 'SELECT, INSERT, UPDATE, DELETE'),
    ('workers', 'gateway, reader', 'SELECT'),
    ('upkeep', 'worker', 'SELECT, UPDATE'),
    ('upkeep', 'reader', 'SELECT'),

    ('user_permissions', 'admin', 'SELECT, INSERT, UPDATE, DELETE'),
    ('user_permissions', 'gateway, reader', 'SELECT'),
    ('roles', 'admin', 'SELECT, INSERT, UPDATE, DELETE'),
    ('roles', 'gateway, reader', 'SELECT'),
    ('role_permissions', 'admin', 'SELECT, INSERT, UPDATE, DELETE'),
    ('role_permissions', 'gateway, reader', 'SELECT'),
    ('user_roles', 'admin', 'SELECT, INSERT, UPDATE, DELETE'),
    ('user_roles', 'gateway, reader', 'SELECT'),
    -- Raised by the triggers of the four tables before it.
    ('permission_version', 'admin', 'SELECT, UPDATE'),
    ('permission_version', 'gateway, worker, reader', 'SELECT'),

    -- A gateway writes them for POST /api/v1/admin/revocations. What cannot be valid any more goes with the next.
    ('revoked_tokens', 'admin, gateway', 'SELECT, INSERT, UPDATE, DELETE'),
    ('revoked_tokens', 'worker, reader', 'SELECT'),
    ('revocation_version', 'admin, gateway', 'SELECT, UPDATE'),
    ('revocation_version', 'worker, reader', 'SELECT'),

    ('command_audit', 'worker', 'SELECT, INSERT'),
    ('command_audit', 'gateway, admin, reader', 'SELECT'),
    ('audit_head', 'worker', 'SELECT, UPDATE'),
    ('audit_head', 'gateway, admin, reader', 'SELECT'),
    ('audit_position', 'worker', 'SELECT, INSERT, UPDATE'),
    ('audit_position', 'reader', 'SELECT'),
    ('audit_horizon', 'worker', 'SELECT, UPDATE'),
    ('audit_horizon', 'gateway, admin, reader', 'SELECT'),
    ('audit_prunings', 'worker', 'SELECT, INSERT'),
    ('audit_prunings', 'gateway, admin, reader', 'SELECT')
  ) AS rights (relation, roles, privileges) LOOP
    IF to_regclass('public.' || given.relation) IS NOT NULL THEN
      EXECUTE format('GRANT %s ON public.%I TO %s', given.privileges, given.relation,
        'wheelhouse_' || replace(given.roles, ', ', ', wheelhouse_'));
    END IF;
  END LOOP;
  IF to_regprocedure('public.remove_old_audit_rows(bigint, bigint)') IS NOT NULL THEN
    REVOKE ALL ON FUNCTION public.remove_old_audit_rows(BIGINT, BIGINT) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION public.remove_old_audit_rows(BIGINT, BIGINT) TO wheelhouse_worker;
  END IF;
  IF to_regprocedure('public.add_up_job_counts(bigint, boolean)') IS NOT NULL THEN
    REVOKE ALL ON FUNCTION public.add_up_job_counts(BIGINT, BOOLEAN) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION public.add_up_job_counts(BIGINT, BOOLEAN) TO wheelhouse_worker, wheelhouse_gateway;
  END IF;
END $$;
