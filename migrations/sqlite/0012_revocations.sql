-- Tokens that are refused although their time is not over. Times are Unix seconds, as in the tokens themselves.
-- Every change, also by plain SQL, raises the version and gives it to the row: gateways and workers ask for the rows that
-- are newer than what they know. A removal raises it too, so that they notice that a row is missing.
CREATE TABLE revocation_version (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL);
INSERT INTO revocation_version (id, version) VALUES (1, 0);
CREATE TABLE revoked_tokens (
  -- 'token': name is the claim jti. 'user', 'worker': name is whose tokens are refused, those issued up to revoked_at.
  kind TEXT NOT NULL CHECK (kind IN ('token', 'user', 'worker')),
  name TEXT NOT NULL,
  -- NULL: in every tenant.
  tenant_id TEXT,
  revoked_at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER)),
  -- Nothing that is refused can be valid any more from then on, and the row may go. NULL: never.
  keep_until INTEGER,
  revoked_by TEXT,
  reason TEXT,
  version INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX revoked_tokens_subject ON revoked_tokens (kind, name, COALESCE(tenant_id, ''));
CREATE INDEX revoked_tokens_version ON revoked_tokens (version);
CREATE TRIGGER revoked_tokens_i AFTER INSERT ON revoked_tokens BEGIN
  UPDATE revocation_version SET version = version + 1;
  UPDATE revoked_tokens SET version = (SELECT version FROM revocation_version) WHERE rowid = NEW.rowid;
END;
CREATE TRIGGER revoked_tokens_u AFTER UPDATE OF kind, name, tenant_id, revoked_at, keep_until ON revoked_tokens BEGIN
  UPDATE revocation_version SET version = version + 1;
  UPDATE revoked_tokens SET version = (SELECT version FROM revocation_version) WHERE rowid = NEW.rowid;
END;
CREATE TRIGGER revoked_tokens_d AFTER DELETE ON revoked_tokens BEGIN
  UPDATE revocation_version SET version = version + 1;
END;
