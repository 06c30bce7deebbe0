//! Reads the record: what Redis, SQL and the audit trail hold.

use std::time::{Duration, Instant};

use wheelhouse::broker::Broker;
use wheelhouse::config::Settings;
use wheelhouse::domain::{Resource, ResourceKind};
use wheelhouse::store::{AuditFilter, Store};

use crate::cluster::UP;
use crate::history::{Audit, Change, Effect, Record, Subject};
use crate::plan::TENANT;
use crate::sql::Sql;

/// Results that Redis keeps of one resource.
const KEPT: usize = 1_000;

/// Before it is tried again.
const AGAIN: Duration = Duration::from_millis(200);

pub struct Reader {
    broker: Broker,
    store: Store,
}

async fn broker(settings: &Settings) -> Result<Broker, String> {
    Broker::connect(&settings.redis).await.map_err(|error| error.to_string())
}

async fn store(settings: &Settings) -> Result<Store, String> {
    Store::open(&settings.database).await.map_err(|error| error.to_string())
}

impl Reader {
    /// Waits for Redis and SQL, each of which may be busy with what was broken until now.
    pub async fn new(settings: &Settings) -> Self {
        let begun = Instant::now();
        let connected = loop {
            let connected = async { Ok::<_, String>((broker(settings).await?, store(settings).await?)) };
            match connected.await {
                Ok(connected) => break connected,
                Err(error) => assert!(begun.elapsed() < UP, "the record cannot be reached: {error}"),
            }
            tokio::time::sleep(AGAIN).await;
        };
        Self { broker: connected.0, store: connected.1 }
    }

    /// Everything as it is now; an error where Redis or SQL does not answer just now.
    pub async fn read(&self, subjects: &[Subject], sql: &Sql) -> Result<Record, Box<dyn std::error::Error>> {
        let mut record = Record::default();
        let tenant = TENANT.parse()?;
        let keys = self.broker.keys();
        for subject in subjects {
            let resource = Resource::parse(&format!("{TENANT}:{}", subject.name)).expect("a resource");
            let ended = self.broker.recent_results(&resource, KEPT).await?;
            let ended = ended.into_iter().map(|ended| (ended.command.to_string(), ended.message));
            record.results.insert(subject.name.clone(), ended.collect());
            for line in self.show(&["LRANGE", &keys.queue(&resource), "0", "-1"]).await? {
                record.left.push(format!("queue of {}: {line}", subject.name));
            }
            let status = match resource.kind {
                ResourceKind::Job => self.store.job(&resource).await?.map(|job| job.status.as_str().to_owned()),
                ResourceKind::Campaign => self.store.campaign(&resource).await?.map(|campaign| {
                    let fits = campaign.is_active == (campaign.status.as_str() == "active");
                    let word = campaign.status.as_str();
                    if fits { word.to_owned() } else { format!("{word} ({})", campaign.is_active) }
                }),
            };
            record.rows.extend(status.map(|status| (subject.name.clone(), status)));
        }
        let partition = keys.partition(&tenant);
        for (what, command) in [
            ("backlog", &["GET", &keys.backlog(&tenant)][..]),
            ("entries of the audit stream", &["XLEN", &keys.audit(partition)]),
            // The longest delay of a plan is far shorter than the wait for everything to settle.
            ("what is to run later", &["ZRANGE", &keys.schedule(partition), "0", "-1"]),
            ("scheduled", &["HKEYS", &keys.schedules(&tenant)]),
        ] {
            record.left.extend(self.show(command).await?.into_iter().map(|left| format!("{what}: {left}")));
        }
        let counted = self.show(&["HVALS", &keys.refusals(partition)]).await?;
        let untold = counted.into_iter().filter(|counted| !counted.contains("\"counted\":0"));
        record.left.extend(untold.map(|left| format!("refusals without an audit entry: {left}")));
        record.audit = self.audit().await?;
        for (at, resource, status, command) in sql.effects().await? {
            let change = match (resource, command) {
                (Some(resource), _) => Change::Row { resource, status },
                (None, command) => Change::Applied { command: command.unwrap_or_default(), outcome: status },
            };
            record.effects.push(Effect { at, change });
        }
        Ok(record)
    }

    async fn show(&self, words: &[&str]) -> Result<Vec<String>, wheelhouse::broker::BrokerError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.broker.query_any(&words).await
    }

    async fn audit(&self) -> Result<Vec<Audit>, wheelhouse::store::StoreError> {
        let mut filter = AuditFilter { limit: 1_000, ..AuditFilter::default() };
        let (mut rows, mut previous) = (Vec::new(), None);
        loop {
            let page = self.store.audit(&filter).await?;
            for row in page.items {
                let chained = previous.replace(row.hash.clone()).is_none_or(|hash| hash == row.previous_hash);
                let intact = chained && row.is_intact();
                let entry = row.entry;
                rows.push(Audit {
                    at: entry.at,
                    event: entry.event,
                    user: entry.user_id,
                    resource: format!("{}:{}", entry.resource_kind, entry.resource_id),
                    action: entry.action,
                    command: entry.command_id,
                    request: entry.request_id,
                    outcome: entry.outcome,
                    attempts: entry.attempts,
                    run_at: entry.run_at,
                    batch: entry.batch_id,
                    refusals: entry.refusals,
                    intact,
                });
            }
            filter.after = page.next;
            if filter.after.is_none() {
                // One tenant, one partition, one stream: the rows are in its order.
                return Ok(rows);
            }
        }
    }
}
