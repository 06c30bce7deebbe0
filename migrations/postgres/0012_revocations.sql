-- Tokens that are refused although their time is not over. Times are Unix seconds, as in the tokens themselves.
-- Every change, also by plain SQL, raises the version and gives it to the row: gateways and workers ask for the rows that
-- are newer than what they know. The row of the version is locked until the transaction ends, so that no reader sees a
-- later version before an earlier one. A removal raises it too, so that readers notice that a row is missing.
CREATE TABLE revocation_version (id BIGINT PRIMARY KEY CHECK (id = 1), version BIGINT NOT NULL);
INSERT INTO revocation_version (id, version) VALUES (1, 0);
CREATE TABLE revoked_tokens (
  -- 'token': name is the claim jti. 'user', 'worker': name is whose tokens are refused, those issued up to revoked_at.
  kind TEXT NOT NULL CHECK (kind IN ('token', 'user', 'worker')),
  name TEXT NOT NULL,
  -- NULL: in every tenant.
  tenant_id TEXT,
  revoked_at BIGINT NOT NULL DEFAULT (EXTRACT(EPOCH FROM now())::BIGINT),
  -- Nothing that is refused can be valid any more from then on, and the row may go. NULL: never.
  keep_until BIGINT,
  revoked_by TEXT,
  reason TEXT,
  version BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX revoked_tokens_subject ON revoked_tokens (kind, name, COALESCE(tenant_id, ''));
CREATE INDEX revoked_tokens_version ON revoked_tokens (version);
CREATE FUNCTION give_revocation_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE revocation_version SET version = version + 1 RETURNING version INTO NEW.version;
  RETURN NEW;
END $$;
CREATE FUNCTION raise_revocation_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE revocation_version SET version = version + 1;
  RETURN NULL;
END $$;
CREATE TRIGGER give_version BEFORE INSERT OR UPDATE ON revoked_tokens
  FOR EACH ROW EXECUTE FUNCTION give_revocation_version();
CREATE TRIGGER raise_version AFTER DELETE ON revoked_tokens
  FOR EACH ROW EXECUTE FUNCTION raise_revocation_version();
CREATE TRIGGER raise_version_when_emptied AFTER TRUNCATE ON revoked_tokens
  FOR EACH STATEMENT EXECUTE FUNCTION raise_revocation_version();
