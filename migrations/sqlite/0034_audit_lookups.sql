-- The audit trail is looked through by action, too, and by time without reading all that is older or newer.

-- Rows lie in the order in which they reached SQL, nearly that of their times. How nearly: up to the row `times_to`, none is
-- older than one before it by more than `most_late` ms, and the latest has the time `latest_at` (Unix ms). So the rows of a time
-- lie between two that are further from it than that. A version before these columns does not move `times_to`.
ALTER TABLE audit_head ADD COLUMN times_to INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audit_head ADD COLUMN latest_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audit_head ADD COLUMN most_late INTEGER NOT NULL DEFAULT 0;
-- A ms more at both ends: times are counted in days here, which are rounded.
UPDATE audit_head SET times_to = last_id, latest_at = found.latest + 1, most_late = found.late + 2
  FROM (
    SELECT MAX(latest) AS latest, MAX(latest - ms) AS late FROM (
      SELECT ms, MAX(ms) OVER (ORDER BY id) AS latest FROM (
        SELECT id, CAST((julianday(at) - 2440587.5) * 86400000 + 0.5 AS INTEGER) AS ms FROM command_audit))) AS found
  WHERE found.latest IS NOT NULL;

-- SQLite puts the row id last, in whose order everything is read.
CREATE INDEX command_audit_by_action ON command_audit (tenant_id, action);
