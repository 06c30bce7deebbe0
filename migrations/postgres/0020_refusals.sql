-- Refusals of one user that were counted are one row of the audit trail: how many, and when the first and the last of them
-- were, in Unix ms. No part of the hash of rows that have none.
ALTER TABLE command_audit ADD COLUMN refusals BIGINT;
ALTER TABLE command_audit ADD COLUMN first_at BIGINT;
ALTER TABLE command_audit ADD COLUMN last_at BIGINT;
