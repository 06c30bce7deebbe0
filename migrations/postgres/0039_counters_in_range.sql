-- The numbers of other tables to which statements add are kept where there is room for that, as those of jobs are
-- (0038_numbers_in_range.sql): one at the end of its type's range, written by plain SQL, would make each statement fail that adds to it.

-- What is there already, before anything is said of what may follow.
UPDATE worker_leases SET renewals = 0 WHERE renewals NOT BETWEEN 0 AND 9007199254740991;
UPDATE permission_version SET version = LEAST(GREATEST(version, 0), 4503599627370496) WHERE version NOT BETWEEN 0 AND 4503599627370496;
UPDATE revocation_version SET version = LEAST(GREATEST(version, 0), 4503599627370496) WHERE version NOT BETWEEN 0 AND 4503599627370496;
UPDATE job_count_changes SET n = 0 WHERE n NOT BETWEEN -1099511627776 AND 1099511627776;
UPDATE job_ends SET n = 0 WHERE n NOT BETWEEN -1099511627776 AND 1099511627776;
-- Counted anew: what is not yet added up comes to it.
UPDATE job_counts k SET n =
    (SELECT COUNT(*) FROM jobs j WHERE j.tenant_id = k.tenant_id AND COALESCE(j.campaign_id, '') = k.campaign_id AND j.status = k.status)
    - (SELECT COALESCE(SUM(c.n), 0)::BIGINT FROM job_count_changes c
       WHERE c.tenant_id = k.tenant_id AND c.campaign_id = k.campaign_id AND c.status = k.status)
  WHERE n NOT BETWEEN -1099511627776 AND 1099511627776;

-- Whoever looks at a lease sees that its number changes: it may begin anew.
CREATE FUNCTION keep_renewals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.renewals := 0;
  RETURN NEW;
END $$;
CREATE TRIGGER within_range BEFORE INSERT OR UPDATE ON worker_leases FOR EACH ROW
  WHEN (NEW.renewals NOT BETWEEN 0 AND 9007199254740991) EXECUTE FUNCTION keep_renewals();

-- A version only grows: what is read under an older one is not believed. One that nobody can have counted up to is the next one. Half of
-- what a double holds exactly, so that there is room above it.
CREATE FUNCTION keep_new_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.version := LEAST(GREATEST(NEW.version, 0), 4503599627370496);
  RETURN NEW;
END $$;
CREATE FUNCTION keep_next_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.version := OLD.version + 1;
  RETURN NEW;
END $$;
CREATE TRIGGER within_range_i BEFORE INSERT ON permission_version FOR EACH ROW
  WHEN (NEW.version NOT BETWEEN 0 AND 4503599627370496) EXECUTE FUNCTION keep_new_version();
CREATE TRIGGER within_range_u BEFORE UPDATE ON permission_version FOR EACH ROW
  WHEN (NEW.version NOT BETWEEN 0 AND 4503599627370496) EXECUTE FUNCTION keep_next_version();
CREATE TRIGGER within_range_i BEFORE INSERT ON revocation_version FOR EACH ROW
  WHEN (NEW.version NOT BETWEEN 0 AND 4503599627370496) EXECUTE FUNCTION keep_new_version();
CREATE TRIGGER within_range_u BEFORE UPDATE ON revocation_version FOR EACH ROW
  WHEN (NEW.version NOT BETWEEN 0 AND 4503599627370496) EXECUTE FUNCTION keep_next_version();

-- No table has so many jobs, and a sum of millions of such counts has room. A count that is none changes nothing.
CREATE FUNCTION keep_new_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.n := 0;
  RETURN NEW;
END $$;
CREATE FUNCTION keep_former_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.n := OLD.n;
  RETURN NEW;
END $$;
CREATE TRIGGER within_range_i BEFORE INSERT ON job_counts FOR EACH ROW
  WHEN (NEW.n NOT BETWEEN -1099511627776 AND 1099511627776) EXECUTE FUNCTION keep_new_count();
CREATE TRIGGER within_range_u BEFORE UPDATE ON job_counts FOR EACH ROW
  WHEN (NEW.n NOT BETWEEN -1099511627776 AND 1099511627776) EXECUTE FUNCTION keep_former_count();
CREATE TRIGGER within_range_i BEFORE INSERT ON job_count_changes FOR EACH ROW
  WHEN (NEW.n NOT BETWEEN -1099511627776 AND 1099511627776) EXECUTE FUNCTION keep_new_count();
CREATE TRIGGER within_range_u BEFORE UPDATE ON job_count_changes FOR EACH ROW
  WHEN (NEW.n NOT BETWEEN -1099511627776 AND 1099511627776) EXECUTE FUNCTION keep_former_count();
CREATE TRIGGER within_range_i BEFORE INSERT ON job_ends FOR EACH ROW
  WHEN (NEW.n NOT BETWEEN -1099511627776 AND 1099511627776) EXECUTE FUNCTION keep_new_count();
CREATE TRIGGER within_range_u BEFORE UPDATE ON job_ends FOR EACH ROW
  WHEN (NEW.n NOT BETWEEN -1099511627776 AND 1099511627776) EXECUTE FUNCTION keep_former_count();
