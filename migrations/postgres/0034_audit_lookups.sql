-- The audit trail is looked through by action, too, and by time without reading all that is older or newer.

-- Rows lie in the order in which they reached SQL, nearly that of their times. How nearly: up to the row `times_to`, none is
-- older than one before it by more than `most_late` ms, and the latest has the time `latest_at` (Unix ms). So the rows of a time
-- lie between two that are further from it than that. A version before these columns does not move `times_to`.
ALTER TABLE audit_head ADD COLUMN times_to BIGINT NOT NULL DEFAULT 0;
ALTER TABLE audit_head ADD COLUMN latest_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE audit_head ADD COLUMN most_late BIGINT NOT NULL DEFAULT 0;
-- Since the columns came nobody can append until this is committed.
UPDATE audit_head SET times_to = last_id, latest_at = found.latest + 1, most_late = found.late + 2
  FROM (
    SELECT MAX(latest) AS latest, MAX(latest - ms) AS late FROM (
      SELECT ms, MAX(ms) OVER (ORDER BY id) AS latest FROM (
        SELECT id, (EXTRACT(EPOCH FROM at) * 1000)::BIGINT AS ms FROM command_audit) t) w) AS found
  WHERE found.latest IS NOT NULL;

-- After the other table, as whoever appends takes them.
CREATE INDEX command_audit_by_action ON command_audit (tenant_id, action, id);
