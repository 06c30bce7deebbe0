-- The same as in migrations/postgres, in SQLite's words.
--
-- The numbers of other tables to which statements add are kept where there is room for that, as those of jobs are
-- (0038_numbers_in_range.sql). SQLite goes on with a number that is not exact where one is too large, to which adding one changes nothing:
-- a worker that renews such a lease would seem to be dead, and nobody would learn of a right that was taken away. It refuses to add up
-- counts that are too large.

-- What is there already. A text is above all numbers.
UPDATE worker_leases SET renewals = 0 WHERE renewals NOT BETWEEN 0 AND 9007199254740991 OR renewals <> CAST(renewals AS INTEGER);
UPDATE permission_version SET version = MIN(MAX(CAST(version AS INTEGER), 0), 4503599627370496) WHERE version NOT BETWEEN 0 AND 4503599627370496 OR version <> CAST(version AS INTEGER);
UPDATE revocation_version SET version = MIN(MAX(CAST(version AS INTEGER), 0), 4503599627370496) WHERE version NOT BETWEEN 0 AND 4503599627370496 OR version <> CAST(version AS INTEGER);
UPDATE job_ends SET n = 0 WHERE n NOT BETWEEN -1099511627776 AND 1099511627776 OR n <> CAST(n AS INTEGER);
-- Counted anew.
UPDATE job_counts SET n =
    (SELECT COUNT(*) FROM jobs j WHERE j.tenant_id = job_counts.tenant_id AND COALESCE(j.campaign_id, '') = job_counts.campaign_id
       AND j.status = job_counts.status)
  WHERE n NOT BETWEEN -1099511627776 AND 1099511627776 OR n <> CAST(n AS INTEGER);

-- Whoever looks at a lease sees that its number changes: it may begin anew.
CREATE TRIGGER worker_leases_in_range_i AFTER INSERT ON worker_leases WHEN NEW.renewals NOT BETWEEN 0 AND 9007199254740991 OR NEW.renewals <> CAST(NEW.renewals AS INTEGER) BEGIN
  UPDATE worker_leases SET renewals = 0 WHERE worker_id = NEW.worker_id;
END;
CREATE TRIGGER worker_leases_in_range_u AFTER UPDATE OF renewals ON worker_leases WHEN NEW.renewals NOT BETWEEN 0 AND 9007199254740991 OR NEW.renewals <> CAST(NEW.renewals AS INTEGER) BEGIN
  UPDATE worker_leases SET renewals = 0 WHERE worker_id = NEW.worker_id;
END;

-- A version only grows: what is read under an older one is not believed. One that nobody can have counted up to is the next one. Half of
-- what a double holds exactly, so that there is room above it.
CREATE TRIGGER permission_version_in_range_i AFTER INSERT ON permission_version WHEN NEW.version NOT BETWEEN 0 AND 4503599627370496 OR NEW.version <> CAST(NEW.version AS INTEGER) BEGIN
  UPDATE permission_version SET version = MIN(MAX(CAST(version AS INTEGER), 0), 4503599627370496) WHERE id = NEW.id;
END;
CREATE TRIGGER permission_version_in_range_u AFTER UPDATE OF version ON permission_version WHEN NEW.version NOT BETWEEN 0 AND 4503599627370496 OR NEW.version <> CAST(NEW.version AS INTEGER) BEGIN
  UPDATE permission_version SET version = OLD.version + 1 WHERE id = NEW.id;
END;
CREATE TRIGGER revocation_version_in_range_i AFTER INSERT ON revocation_version WHEN NEW.version NOT BETWEEN 0 AND 4503599627370496 OR NEW.version <> CAST(NEW.version AS INTEGER) BEGIN
  UPDATE revocation_version SET version = MIN(MAX(CAST(version AS INTEGER), 0), 4503599627370496) WHERE id = NEW.id;
END;
CREATE TRIGGER revocation_version_in_range_u AFTER UPDATE OF version ON revocation_version WHEN NEW.version NOT BETWEEN 0 AND 4503599627370496 OR NEW.version <> CAST(NEW.version AS INTEGER) BEGIN
  UPDATE revocation_version SET version = OLD.version + 1 WHERE id = NEW.id;
END;

-- No table has so many jobs, and a sum of millions of such counts has room. A count that is none changes nothing.
CREATE TRIGGER job_counts_in_range_i AFTER INSERT ON job_counts WHEN NEW.n NOT BETWEEN -1099511627776 AND 1099511627776 OR NEW.n <> CAST(NEW.n AS INTEGER) BEGIN
  UPDATE job_counts SET n = 0 WHERE tenant_id = NEW.tenant_id AND campaign_id = NEW.campaign_id AND status = NEW.status;
END;
CREATE TRIGGER job_counts_in_range_u AFTER UPDATE OF n ON job_counts WHEN NEW.n NOT BETWEEN -1099511627776 AND 1099511627776 OR NEW.n <> CAST(NEW.n AS INTEGER) BEGIN
  UPDATE job_counts SET n = OLD.n WHERE tenant_id = NEW.tenant_id AND campaign_id = NEW.campaign_id AND status = NEW.status;
END;
CREATE TRIGGER job_ends_in_range_i AFTER INSERT ON job_ends WHEN NEW.n NOT BETWEEN -1099511627776 AND 1099511627776 OR NEW.n <> CAST(NEW.n AS INTEGER) BEGIN
  UPDATE job_ends SET n = 0 WHERE tenant_id = NEW.tenant_id AND minute = NEW.minute AND status = NEW.status;
END;
CREATE TRIGGER job_ends_in_range_u AFTER UPDATE OF n ON job_ends WHEN NEW.n NOT BETWEEN -1099511627776 AND 1099511627776 OR NEW.n <> CAST(NEW.n AS INTEGER) BEGIN
  UPDATE job_ends SET n = OLD.n WHERE tenant_id = NEW.tenant_id AND minute = NEW.minute AND status = NEW.status;
END;
