//! Takes jobs out of the queue for a worker: one, or several in one transaction, the same that it would get one after the
//! other.

use std::collections::{BTreeMap, HashMap};

use super::job_indexes::{BY_CAMPAIGN, BY_TYPE, HALVES, QUEUE, QUEUE_OF_CAMPAIGN};
use super::quarantine::{CorruptRows, add_corrupt, check_run, quarantine};
use super::queue::{ACTIVE, CONDITION_COLUMNS, JobTypeGroup, OLDEST_LIMIT, due, fits, oldest_of_type};
use super::sql::{MultiRowInsert, Row, Tx, Value};
use super::{ClaimedJob, Company, Run, Store, StoreError, rows};
use crate::domain::{Resource, WorkerId};

/// The key of a row that this transaction holds.
type Key = (String, String);

/// Rows that cannot be read are looked for in so many steps behind one that was met, and in each step so many rows are looked at: no more than
/// are claimed at once, since each is read with all that it holds.
const MAX_STEPS: usize = 32;
const STEP: usize = 32;

impl Store {
    /// Takes up to `limit` jobs of these groups, the best of which stands first. `left_out`: groups that come behind these. And
    /// whether it met rows that cannot be read: those that it met, and those around them, are out of the way then.
    pub(super) async fn claim_of_groups(
        &self,
        now: i64,
        groups: &[JobTypeGroup],
        left_out: &[JobTypeGroup],
        host: &WorkerId,
        company: Company,
        limit: usize,
    ) -> Result<(Vec<ClaimedJob>, bool), StoreError> {
        let shares = match groups {
            [best, ..] if limit == 1 => vec![(best.clone(), 1)],
            _ => self.shares(now, groups, left_out, company, limit).await?,
        };
        let mut tx = self.database.write().await?;
        let (mut held, mut corrupt) = (Vec::new(), CorruptRows::default());
        for (group, share) in &shares {
            held.extend(hold_rows(&mut tx, now, group, company, *share, &mut corrupt).await?);
        }
        // Others have taken what was meant for this worker: then the first that is left.
        for group in groups.iter().filter(|group| !shares.iter().any(|(tried, _)| tried.is_same(group))) {
            if !held.is_empty() {
                break;
            }
            held = hold_rows(&mut tx, now, group, company, 1, &mut corrupt).await?;
        }
        let claimed = start_runs(&mut tx, held, host, &mut corrupt).await?;
        let is_corrupt = !corrupt.is_empty();
        if is_corrupt {
            // Whoever wrote one has mostly written more: each by itself would cost a look.
            for group in groups {
                find_corrupt(&mut tx, group, host, &mut corrupt).await?;
            }
            quarantine(&mut tx, &corrupt).await?;
        }
        // Also where nothing was claimed: a row that can never run may have been marked so.
        tx.commit().await?;
        Ok((claimed, is_corrupt))
    }

    /// How many jobs of which group come next, if each goes to the tenant with the fewest running, and of its jobs the oldest.
    /// Fewer than `limit`, where a job that was not looked at may come before the next.
    async fn shares(
        &self,
        now: i64,
        groups: &[JobTypeGroup],
        left_out: &[JobTypeGroup],
        company: Company,
        limit: usize,
    ) -> Result<Vec<(JobTypeGroup, usize)>, StoreError> {
        let (text, values) = oldest_of_groups(now, groups, company, limit);
        let mut found = Candidates::default();
        let mut seen: HashMap<usize, (usize, i64)> = HashMap::new();
        for row in &self.database.read().await?.rows(&text, &values).await? {
            let place = row.int("place")?.and_then(|place| usize::try_from(place).ok());
            let (Some(place), Some(number)) = (place, row.int("row_id")?) else { continue };
            let Some(of) = groups.get(place) else { continue };
            let (count, last) = seen.entry(place).or_insert((0, number));
            (*count, *last) = (*count + 1, number.max(*last));
            if row.int("can_run")? == Some(1) {
                // One that cannot be read is left to whoever comes to it.
                let Ok(campaign) = row.key("campaign_id") else { continue };
                // One group may be there twice, found by two looks.
                found.jobs.insert(number, JobTypeGroup { campaign, ..of.clone() });
            }
        }
        for (place, (count, last)) in seen {
            if !groups[place].is_behind && count == OLDEST_LIMIT as usize {
                found.unseen.push((groups[place].clone(), last.saturating_add(1)));
            }
        }
        found.unseen.extend(left_out.iter().map(|group| (group.clone(), group.first)));
        Ok(allot(found, limit))
    }
}

/// What there is to choose from.
#[derive(Default)]
struct Candidates {
    /// Jobs that could run, by their rows, each with its group.
    jobs: BTreeMap<i64, JobTypeGroup>,
    /// Groups of which nothing is known from this row on.
    unseen: Vec<(JobTypeGroup, i64)>,
}

/// See [`Store::shares`].
fn allot(mut candidates: Candidates, limit: usize) -> Vec<(JobTypeGroup, usize)> {
    let mut taken: HashMap<String, i64> = HashMap::new();
    let mut shares: Vec<(JobTypeGroup, usize)> = Vec::new();
    for _ in 0..limit {
        let running = |group: &JobTypeGroup| group.running + taken.get(&group.tenant).copied().unwrap_or(0);
        let Some(next) = candidates.jobs.iter().map(|(row, group)| (running(group), *row)).min() else { break };
        if candidates.unseen.iter().any(|(group, row)| (running(group), *row) < next) {
            break;
        }
        let Some(group) = candidates.jobs.remove(&next.1) else { break };
        *taken.entry(group.tenant.clone()).or_default() += 1;
        match shares.iter_mut().find(|(known, _)| known.is_same(&group)) {
            Some((_, share)) => *share += 1,
            None => shares.push((group, 1)),
        }
    }
    shares
}

/// The index of a group's jobs and their condition, which adds its values.
fn of_group(values: &mut Vec<Value>, group: &JobTypeGroup) -> (&'static str, String) {
    let mut next = |value: &str| {
        values.push(value.into());
        format!("${}", values.len())
    };
    let of_type = format!("j.job_type = {} AND j.tenant_id = {}", next(&group.job_type), next(&group.tenant));
    match group.campaign.as_deref() {
        None => (QUEUE, format!("{BY_TYPE} AND {of_type} AND j.campaign_id IS NULL")),
        Some(id) => (QUEUE_OF_CAMPAIGN, format!("{BY_CAMPAIGN} AND {of_type} AND j.campaign_id = {}", next(id))),
    }
}

/// The oldest jobs, each with the place of the group that it was found by, and whether it can run: of a group that is the first
/// of its tenant and type the oldest of all their campaigns, of one that stands behind others its own that can.
fn oldest_of_groups(now: i64, groups: &[JobTypeGroup], company: Company, limit: usize) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = vec![now.into()];
    let parts: Vec<String> = groups
        .iter()
        .enumerate()
        .map(|(number, group)| {
            if group.is_behind {
                let fits = format!("{}{}", due("j"), fits("j", company));
                let (index, of_group) = of_group(&mut values, group);
                return format!(
                    "SELECT * FROM (SELECT CAST({number} AS BIGINT) AS place, j.rowid AS row_id, j.campaign_id, CAST(1 AS BIGINT) AS can_run
                       FROM jobs j {{by:{index}}} WHERE {of_group} AND {fits}
                       ORDER BY j.rowid LIMIT {limit}) g"
                );
            }
            values.extend([group.job_type.as_str().into(), group.tenant.as_str().into()]);
            let (job_type, tenant) = (values.len() - 1, values.len());
            let of = format!("j.job_type = ${job_type} AND j.tenant_id = ${tenant}");
            format!(
                "SELECT CAST({number} AS BIGINT) AS place, w.row_id, w.campaign_id,
                   CAST(CASE WHEN {}{} AND (w.campaign_id IS NULL OR EXISTS (
                     SELECT 1 FROM campaigns c WHERE c.tenant_id = ${tenant} AND c.id = w.campaign_id AND {ACTIVE}))
                     THEN 1 ELSE 0 END AS BIGINT) AS can_run
                 FROM ({}) w",
                due("w"),
                fits("w", company),
                oldest_of_type(CONDITION_COLUMNS, &of, OLDEST_LIMIT)
            )
        })
        .collect();
    (parts.join(" UNION ALL "), values)
}

/// Holds the oldest jobs of a group that nobody else is taking right now. Those that can be seen not to be jobs are held as well, and not
/// among those that it returns.
async fn hold_rows(
    tx: &mut Tx,
    now: i64,
    group: &JobTypeGroup,
    company: Company,
    limit: usize,
    corrupt: &mut CorruptRows,
) -> Result<Vec<Key>, StoreError> {
    if let Some(id) = &group.campaign {
        // Held until this commits: a pause that commits first is seen here, a later one waits. The campaign
        // before its jobs, as everywhere: two that wait for each other would both fail.
        let text = format!("SELECT c.id FROM campaigns c WHERE c.tenant_id = $1 AND c.id = $2 AND {ACTIVE} {{share}}");
        if tx.row(&text, &[group.tenant.as_str().into(), id.as_str().into()]).await?.is_none() {
            return Ok(Vec::new());
        }
    }
    let mut values: Vec<Value> = vec![now.into()];
    let (index, of_group) = of_group(&mut values, group);
    let text = format!(
        "SELECT j.tenant_id, j.id, j.host, j.run, j.rowid AS row_id FROM jobs j {{by:{index}}} WHERE {of_group} AND {}{}
         ORDER BY j.rowid LIMIT {limit} {{skip}}",
        due("j"),
        fits("j", company)
    );
    let mut held = Vec::new();
    for row in &tx.rows(&text, &values).await? {
        match job_to_start(row) {
            Ok(job) => held.push((job.tenant.to_string(), job.id.to_string())),
            Err(why) => add_corrupt(corrupt, row, &why),
        }
    }
    Ok(held)
}

/// Looks for rows that cannot be read among the oldest that wait of the tenant and type of a group, as long as there are some in each step.
async fn find_corrupt(
    tx: &mut Tx,
    group: &JobTypeGroup,
    host: &WorkerId,
    corrupt: &mut CorruptRows,
) -> Result<(), StoreError> {
    for (index, half) in HALVES {
        let text = format!(
            "SELECT {} FROM jobs j {{by:{index}}} WHERE {BY_TYPE} AND {half} AND j.job_type = $1 AND j.tenant_id = $2
               AND j.rowid > $3 ORDER BY j.rowid LIMIT {STEP} {{skip}}",
            contents()
        );
        let mut last = -1;
        for _ in 0..MAX_STEPS {
            let values = [group.job_type.as_str().into(), group.tenant.as_str().into(), Value::from(last)];
            let (found, before) = (tx.rows(&text, &values).await?, corrupt.len());
            for row in &found {
                last = row.int("row_id")?.unwrap_or(i64::MAX);
                if let Err(why) = job_to_start(row).and_then(|_| claimed_job(row, host)) {
                    add_corrupt(corrupt, row, &why);
                }
            }
            if found.len() < STEP || corrupt.len() == before {
                break;
            }
        }
    }
    Ok(())
}

/// The job of a row that waits, if a worker can begin it.
fn job_to_start(row: &Row) -> Result<Resource, StoreError> {
    let job = rows::job_resource(row)?;
    check_run(job.id.as_str(), row.int("run")?.unwrap_or(0))?;
    Ok(job)
}

/// The columns of a job for the worker that runs it.
fn contents() -> String {
    format!("{}, resume_point, timeout_used_ms", *rows::JOB_WITH_CONTENTS)
}

/// Begins the runs of rows that are held, in one statement. What is not this worker's then is left out, and so are rows that cannot be
/// read.
async fn start_runs(
    tx: &mut Tx,
    held: Vec<Key>,
    host: &WorkerId,
    corrupt: &mut CorruptRows,
) -> Result<Vec<ClaimedJob>, StoreError> {
    let contents = contents();
    let (with_host, keys) = (values_of(&held, Some(host)), values_of(&held, None));
    let start = MultiRowInsert {
        before: "UPDATE jobs SET status = 'running', host = given.column3, run = run + 1, started_at = COALESCE(started_at, {now}),
           run_after = NULL, error_message = NULL, error_detail = NULL, alone_in = NULL, remote_session = NULL,
           updated_at = {now}
         FROM (",
        row: "(?, ?, ?)",
        after: ") AS given WHERE tenant_id = given.column1 AND id = given.column2 AND (status || '') = 'pending' AND host IS NULL",
        rows: &with_host,
    };
    let rows = match &*tx {
        // It returns rows as they were before its triggers.
        Tx::Sqlite(_) => {
            let read = MultiRowInsert {
                before: &format!("SELECT {contents} FROM jobs WHERE (tenant_id, id) IN ("),
                row: "(?, ?)",
                after: ") AND (status || '') = 'running'",
                rows: &keys,
            };
            tx.execute_with_rows(&[start], &read).await?
        }
        Tx::Postgres(_) => {
            let start = MultiRowInsert { after: &format!("{} RETURNING {contents}", start.after), ..start };
            tx.rows_of_many(&start).await?
        }
    };
    let mut started: HashMap<Key, Row> = HashMap::new();
    for row in rows {
        if row.text("host")?.as_deref() == Some(host.as_str()) {
            started.insert((row.required("tenant_id")?, row.required("id")?), row);
        }
    }
    let mut claimed = Vec::with_capacity(held.len());
    for key in held {
        let Some(row) = started.get(&key) else { continue };
        match claimed_job(row, host) {
            Ok(job) => claimed.push(job),
            // Only plain SQL can have put it there as queued. At the head of its group it would stop all behind it.
            Err(why) => add_corrupt(corrupt, row, &why),
        }
    }
    Ok(claimed)
}

fn claimed_job(row: &Row, host: &WorkerId) -> Result<ClaimedJob, StoreError> {
    let job = rows::job(row)?;
    Ok(ClaimedJob {
        resume_point: row.text("resume_point")?,
        timeout_used_ms: row.int("timeout_used_ms")?.unwrap_or(0),
        run: Run {
            job: Resource::job(job.tenant_id.clone(), job.id.clone()),
            host: host.clone(),
            number: row.int("run")?.unwrap_or(0),
        },
        deaths: row.int("deaths")?.unwrap_or(0),
        job,
    })
}

/// Keys as the values of a statement, each with the host if one is given.
fn values_of(held: &[Key], host: Option<&WorkerId>) -> Vec<Vec<Value>> {
    let key = |(tenant, id): &Key| [tenant.as_str().into(), id.as_str().into()];
    held.iter().map(|held| key(held).into_iter().chain(host.map(|host| host.as_str().into())).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_goes_to_the_tenant_with_the_fewest_running_and_of_its_jobs_the_oldest() {
        let group = |tenant: &str, campaign: Option<&str>, running| JobTypeGroup {
            tenant: tenant.into(),
            campaign: campaign.map(str::to_owned),
            job_type: "work".into(),
            first: 0,
            running,
            is_behind: false,
        };
        let (alone, of_campaign, other) = (group("a", None, 0), group("a", Some("c"), 0), group("b", None, 2));
        let candidates = || {
            let rows = [(1, &alone), (2, &of_campaign), (3, &of_campaign), (4, &alone), (6, &other), (7, &other)];
            rows.into_iter().map(|(row, group)| (row, group.clone())).collect::<BTreeMap<_, _>>()
        };
        let shares = |limit| {
            let shares = allot(Candidates { jobs: candidates(), unseen: Vec::new() }, limit);
            shares.into_iter().map(|(group, share)| (group.tenant, group.campaign, share)).collect::<Vec<_>>()
        };
        let share =
            |tenant: &str, campaign: Option<&str>, share| (tenant.to_owned(), campaign.map(str::to_owned), share);
        assert_eq!(shares(1), [share("a", None, 1)]);
        assert_eq!(
            shares(3),
            [share("a", None, 1), share("a", Some("c"), 2)],
            "two run in both, and 3 is older than 6"
        );
        assert_eq!(shares(4), [share("a", None, 1), share("a", Some("c"), 2), share("b", None, 1)]);
        assert_eq!(shares(100), [share("a", None, 2), share("a", Some("c"), 2), share("b", None, 2)]);
        // Of a nothing is known from row 4 on: so far all is as it would be with all of them, and then another look is due.
        let (mut jobs, unseen) = (candidates(), vec![(alone.clone(), 4)]);
        jobs.remove(&4);
        let shares = allot(Candidates { jobs, unseen }, 100);
        let shares: Vec<_> = shares.into_iter().map(|(group, share)| (group.tenant, share)).collect();
        assert_eq!(shares, [("a".to_owned(), 1), ("a".to_owned(), 2), ("b".to_owned(), 1)]);
    }
}
