-- A permission, a role and the giving of a role may be for one tenant; NULL: in every tenant. An INSERT that names no
-- tenant does what it did.
ALTER TABLE user_permissions DROP CONSTRAINT user_permissions_pkey;
ALTER TABLE user_permissions ADD COLUMN tenant_id TEXT;
CREATE UNIQUE INDEX user_permissions_once ON user_permissions (user_id, permission, COALESCE(tenant_id, ''));
ALTER TABLE user_roles DROP CONSTRAINT user_roles_pkey;
ALTER TABLE user_roles ADD COLUMN tenant_id TEXT;
CREATE UNIQUE INDEX user_roles_once ON user_roles (user_id, role_id, COALESCE(tenant_id, ''));
ALTER TABLE roles ADD COLUMN tenant_id TEXT;
-- The tenant of a role decides where it counts.
CREATE TRIGGER raise_version AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON roles
  FOR EACH STATEMENT EXECUTE FUNCTION raise_permission_version();
