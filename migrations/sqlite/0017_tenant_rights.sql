-- A permission, a role and the giving of a role may be for one tenant; NULL: in every tenant. An INSERT that names no
-- tenant does what it did. SQLite cannot drop a primary key, so the tables are made anew; their triggers go with the old
-- ones.
CREATE TABLE user_permissions_0017 (
  user_id TEXT NOT NULL,
  permission TEXT NOT NULL,
  tenant_id TEXT
);
INSERT INTO user_permissions_0017 (user_id, permission) SELECT user_id, permission FROM user_permissions;
DROP TABLE user_permissions;
ALTER TABLE user_permissions_0017 RENAME TO user_permissions;
CREATE UNIQUE INDEX user_permissions_once ON user_permissions (user_id, permission, COALESCE(tenant_id, ''));

CREATE TABLE user_roles_0017 (
  user_id TEXT NOT NULL,
  role_id TEXT NOT NULL,
  tenant_id TEXT
);
INSERT INTO user_roles_0017 (user_id, role_id) SELECT user_id, role_id FROM user_roles;
DROP TABLE user_roles;
ALTER TABLE user_roles_0017 RENAME TO user_roles;
CREATE UNIQUE INDEX user_roles_once ON user_roles (user_id, role_id, COALESCE(tenant_id, ''));

ALTER TABLE roles ADD COLUMN tenant_id TEXT;

CREATE TRIGGER user_permissions_i AFTER INSERT ON user_permissions BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER user_permissions_u AFTER UPDATE ON user_permissions BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER user_permissions_d AFTER DELETE ON user_permissions BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER user_roles_i AFTER INSERT ON user_roles BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER user_roles_u AFTER UPDATE ON user_roles BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER user_roles_d AFTER DELETE ON user_roles BEGIN UPDATE permission_version SET version = version + 1; END;
-- The tenant of a role decides where it counts.
CREATE TRIGGER roles_i AFTER INSERT ON roles BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER roles_u AFTER UPDATE ON roles BEGIN UPDATE permission_version SET version = version + 1; END;
CREATE TRIGGER roles_d AFTER DELETE ON roles BEGIN UPDATE permission_version SET version = version + 1; END;
