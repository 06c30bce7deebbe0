-- SQLite has no roles. On PostgreSQL this migration lets workers do without the right to DELETE from command_audit.
SELECT 1;
