-- How many jobs of each campaign are in each status, kept where rows change: to count those of a large campaign again for every
-- list and for every report of its progress would read all of them. Whoever changes a row, another system's plain SQL
-- included, has it counted. A job without a campaign counts under the campaign ''.
CREATE TABLE job_counts (
  tenant_id TEXT NOT NULL,
  campaign_id TEXT NOT NULL,
  status TEXT NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (tenant_id, campaign_id, status)
) WITHOUT ROWID;
INSERT INTO job_counts (tenant_id, campaign_id, status, n)
  SELECT tenant_id, COALESCE(campaign_id, ''), status, COUNT(*) FROM jobs GROUP BY tenant_id, COALESCE(campaign_id, ''), status;

CREATE TRIGGER jobs_counted_i AFTER INSERT ON jobs BEGIN
  INSERT INTO job_counts (tenant_id, campaign_id, status, n)
    VALUES (NEW.tenant_id, COALESCE(NEW.campaign_id, ''), NEW.status, 1)
    ON CONFLICT (tenant_id, campaign_id, status) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER jobs_counted_u AFTER UPDATE OF tenant_id, campaign_id, status ON jobs
  WHEN NEW.status <> OLD.status OR NEW.campaign_id IS NOT OLD.campaign_id OR NEW.tenant_id <> OLD.tenant_id BEGIN
  UPDATE job_counts SET n = n - 1
    WHERE tenant_id = OLD.tenant_id AND campaign_id = COALESCE(OLD.campaign_id, '') AND status = OLD.status;
  INSERT INTO job_counts (tenant_id, campaign_id, status, n)
    VALUES (NEW.tenant_id, COALESCE(NEW.campaign_id, ''), NEW.status, 1)
    ON CONFLICT (tenant_id, campaign_id, status) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER jobs_counted_d AFTER DELETE ON jobs BEGIN
  UPDATE job_counts SET n = n - 1
    WHERE tenant_id = OLD.tenant_id AND campaign_id = COALESCE(OLD.campaign_id, '') AND status = OLD.status;
END;

-- What is read. PostgreSQL's has the changes in it that are not yet added up.
CREATE VIEW job_totals AS SELECT tenant_id, campaign_id, status, n FROM job_counts;
