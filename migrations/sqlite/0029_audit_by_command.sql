-- What the trail has of a command already, looked up for each entry that comes: a Redis that a failover has put in place
-- brings again what was there before.
CREATE INDEX command_audit_by_command ON command_audit (command_id) WHERE command_id IS NOT NULL;
