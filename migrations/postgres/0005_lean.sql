-- What every command writes, in fewer places.

-- Only jobs of a campaign are looked for by it.
DROP INDEX jobs_of_campaign;
CREATE INDEX jobs_of_campaign ON jobs (tenant_id, campaign_id, status) WHERE campaign_id IS NOT NULL;
