//! Takes jobs out of the queue for a worker: one, or several in one transaction, the same that it would get one after the
//! other.

use std::collections::{BTreeMap, HashMap};

use super::job_indexes::{BY_CAMPAIGN, BY_TYPE, HALVES, QUEUE, QUEUE_OF_CAMPAIGN};
use super::quarantine::{CorruptRows, add_corrupt, check_run, quarantine};
use super::queue::{
    ACTIVE, CONDITION_COLUMNS, JobTypeGroup, LeftInQueue, OLDEST_LIMIT, QueueLook, due, fits, oldest_of_type,
};
use super::sql::{MultiRowInsert, Row, Tx, Value};
use super::{ClaimedJob, Company, Run, Store, StoreError, rows};
use crate::domain::{Resource, WorkerId};

/// Rows that cannot be read are looked for in so many steps behind one that was met, and in each step so many rows are looked at: no more than
/// are claimed at once, since each is read with all that it holds.
const MAX_STEPS: usize = 32;
const STEP: usize = 32;

impl Store {
    /// Takes up to `limit` jobs of these groups, the best of which stands first. `left_out`: groups that come behind these.
    pub(super) async fn claim_of_groups(
        &self,
        now: i64,
        groups: &[JobTypeGroup],
        left_out: &[JobTypeGroup],
        host: &WorkerId,
        company: Company,
        limit: usize,
    ) -> Result<Claimed, StoreError> {
        let Shares { shares, left } = match groups {
            [best, ..] if limit == 1 => Shares { shares: vec![(best.clone(), 1)], left: LeftInQueue::MayBeMore },
            _ => self.shares(now, groups, left_out, company, limit).await?,
        };
        let mut tx = self.database.write().await?;
        let mut rows = start_oldest(&mut tx, now, &shares, host, company).await?;
        // Others have taken what was meant for this worker: then the first that is left.
        for group in groups.iter().filter(|group| !shares.iter().any(|(tried, _)| tried.is_same(group))) {
            if !rows.is_empty() {
                break;
            }
            rows = start_oldest(&mut tx, now, &[(group.clone(), 1)], host, company).await?;
        }
        let mut corrupt = CorruptRows::default();
        let mut jobs = Vec::with_capacity(rows.len());
        for row in &rows {
            match claimed_job(row, host) {
                Ok(job) => jobs.push(job),
                // Only plain SQL can have put it there as queued. At the head of its group it would stop all behind it.
                Err(why) => add_corrupt(&mut corrupt, row, &why),
            }
        }
        let met_corrupt = !corrupt.is_empty();
        if met_corrupt {
            // Whoever wrote one has mostly written more: each by itself would cost a look.
            for group in groups {
                find_corrupt(&mut tx, group, host, &mut corrupt).await?;
            }
            quarantine(&mut tx, &corrupt).await?;
        }
        tx.commit().await?;
        let left = if jobs.len() == jobs_of(&shares) { left } else { LeftInQueue::MayBeMore };
        Ok(Claimed { look: QueueLook { jobs, left }, met_corrupt })
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
    ) -> Result<Shares, StoreError> {
        let (text, values) = oldest_of_groups(now, groups, company, limit);
        let mut found = Candidates::default();
        let mut seen: HashMap<usize, (usize, i64)> = HashMap::new();
        // Of a group that stands behind others those that do not fit are not there.
        let is_behind = groups.iter().any(|group| group.is_behind);
        let (mut sees_all, mut all_fit) = (true, matches!(company, Company::None) || !is_behind);
        for row in &self.database.read().await?.rows(&text, &values).await? {
            let place = row.int("place")?.and_then(|place| usize::try_from(place).ok());
            let (Some(place), Some(number)) = (place, row.int("row_id")?) else { continue };
            let Some(of) = groups.get(place) else { continue };
            let (count, last) = seen.entry(place).or_insert((0, number));
            (*count, *last) = (*count + 1, number.max(*last));
            let (is_due, fits) = (row.int("is_due")? == Some(1), row.int("fits")? == Some(1));
            all_fit &= fits || !is_due;
            if is_due && fits {
                // One that cannot be read is left to whoever comes to it.
                let Ok(campaign) = row.key("campaign_id") else {
                    sees_all = false;
                    continue;
                };
                // One group may be there twice, found by two looks.
                found.jobs.insert(number, JobTypeGroup { campaign, ..of.clone() });
            }
        }
        for (place, (count, last)) in seen {
            if groups[place].is_behind {
                sees_all &= count < limit;
            } else if count == OLDEST_LIMIT as usize {
                found.unseen.push((groups[place].clone(), last.saturating_add(1)));
            }
        }
        found.unseen.extend(left_out.iter().map(|group| (group.clone(), group.first)));
        sees_all &= found.unseen.is_empty();
        let there = found.jobs.len();
        let shares = allot(found, limit);
        let left = match sees_all && there == jobs_of(&shares) {
            false => LeftInQueue::MayBeMore,
            true if all_fit => LeftInQueue::NothingWaits,
            true => LeftInQueue::NothingFits,
        };
        Ok(Shares { shares, left })
    }
}

/// What was claimed.
pub(super) struct Claimed {
    pub look: QueueLook,
    /// There were rows that cannot be read: those that it met, and those around them, are out of the way now.
    pub met_corrupt: bool,
}

/// How many jobs of which group come next.
struct Shares {
    shares: Vec<(JobTypeGroup, usize)>,
    /// What is left of these groups' jobs.
    left: LeftInQueue,
}

/// How many jobs they are in all.
fn jobs_of(shares: &[(JobTypeGroup, usize)]) -> usize {
    shares.iter().map(|(_, share)| share).sum()
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

/// The oldest jobs, each with the place of the group that it was found by, whether it can run, and whether with this company: of a group that is the first
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
                    "SELECT * FROM (SELECT CAST({number} AS BIGINT) AS place, j.rowid AS row_id, j.campaign_id, CAST(1 AS BIGINT) AS is_due, CAST(1 AS BIGINT) AS fits
                       FROM jobs j {{by:{index}}} WHERE {of_group} AND {fits}
                       ORDER BY j.rowid LIMIT {limit}) g"
                );
            }
            values.extend([group.job_type.as_str().into(), group.tenant.as_str().into()]);
            let (job_type, tenant) = (values.len() - 1, values.len());
            let of = format!("j.job_type = ${job_type} AND j.tenant_id = ${tenant}");
            format!(
                "SELECT CAST({number} AS BIGINT) AS place, w.row_id, w.campaign_id,
                   CAST(CASE WHEN {} AND (w.campaign_id IS NULL OR EXISTS (
                     SELECT 1 FROM campaigns c WHERE c.tenant_id = ${tenant} AND c.id = w.campaign_id AND {ACTIVE}))
                     THEN 1 ELSE 0 END AS BIGINT) AS is_due,
                   CAST(CASE WHEN 1 = 1{} THEN 1 ELSE 0 END AS BIGINT) AS fits
                 FROM ({}) w",
                due("w"),
                fits("w", company),
                oldest_of_type(CONDITION_COLUMNS, &of, OLDEST_LIMIT)
            )
        })
        .collect();
    (parts.join(" UNION ALL "), values)
}

/// Begins runs of the oldest jobs of each group that nobody else is taking right now, so many of each, in one statement. Returns the rows as they
/// are then, the oldest first.
async fn start_oldest(
    tx: &mut Tx,
    now: i64,
    shares: &[(JobTypeGroup, usize)],
    host: &WorkerId,
    company: Company,
) -> Result<Vec<Row>, StoreError> {
    if shares.is_empty() {
        return Ok(Vec::new());
    }
    let (key, returned) = match tx {
        // It returns rows as they were before its triggers, and finds keys that are no text by no text.
        Tx::Sqlite(_) => ("rowid = held.held_row", "rowid AS row_id".to_owned()),
        Tx::Postgres(_) => ("tenant_id = held.held_tenant AND id = held.held_id", contents()),
    };
    let mut values: Vec<Value> = vec![now.into(), host.as_str().into()];
    let held = held_rows(&mut values, shares, company);
    let text = format!(
        "WITH {held}
         UPDATE jobs SET status = 'running', host = $2, run = run + 1, started_at = COALESCE(started_at, {{now}}),
           run_after = NULL, error_message = NULL, error_detail = NULL, alone_in = NULL, remote_session = NULL,
           updated_at = {{now}}
         FROM held WHERE {key} AND (status || '') = 'pending' AND host IS NULL RETURNING {returned}"
    );
    let mut rows = tx.rows(&text, &values).await?;
    if matches!(tx, Tx::Sqlite(_)) {
        let numbers = rows.iter().map(|row| Ok(vec![row.int("row_id")?.into()]));
        let read = MultiRowInsert {
            before: &format!("SELECT {} FROM jobs WHERE rowid IN (", contents()),
            row: "(?)",
            after: ")",
            rows: &numbers.collect::<Result<Vec<_>, StoreError>>()?,
        };
        rows = tx.rows_of_many(&read).await?;
    }
    rows.sort_by_cached_key(|row| row.int("row_id").ok().flatten());
    Ok(rows)
}

/// The table `held` of a statement: the oldest jobs of each group that nobody else is taking right now, so many of each. Their campaigns are
/// held first, until this commits: a pause that commits first is seen here, a later one waits. `$1`: now (Unix ms).
fn held_rows(values: &mut Vec<Value>, shares: &[(JobTypeGroup, usize)], company: Company) -> String {
    let (mut alone, mut in_campaigns): (Vec<_>, Vec<_>) =
        shares.iter().map(|(group, share)| (group, *share)).partition(|(group, _)| group.campaign.is_none());
    // The same text for nearly as many groups: each text is planned once for a connection.
    for groups in [&mut alone, &mut in_campaigns] {
        if let Some((group, _)) = groups.first().copied() {
            groups.resize(groups.len().next_power_of_two(), (group, 0));
        }
    }
    let mut active = String::new();
    if !in_campaigns.is_empty() {
        let keys = in_campaigns.iter().flat_map(|(group, _)| [Some(group.tenant.clone()), group.campaign.clone()]);
        let first = values.len() + 1;
        values.extend(keys.map(Value::from));
        let keys = (0..in_campaigns.len())
            .map(|n| format!("(c.tenant_id = ${} AND c.id = ${})", first + 2 * n, first + 2 * n + 1));
        // In the order in which everybody holds several.
        active = format!(
            "active (tenant_id, id) AS MATERIALIZED (SELECT c.tenant_id, c.id FROM campaigns c
               WHERE ({}) AND {ACTIVE} ORDER BY c.tenant_id, c.id {{share}}), ",
            keys.collect::<Vec<_>>().join(" OR ")
        );
    }
    let mut of_one = |(group, share): (&JobTypeGroup, usize)| {
        let (index, of_group) = of_group(values, group);
        let is_active = match group.campaign {
            // The last two values are the tenant and the campaign.
            Some(_) => format!(
                " AND (SELECT COUNT(*) FROM active a WHERE a.tenant_id = ${} AND a.id = ${}) = 1",
                values.len() - 1,
                values.len()
            ),
            None => String::new(),
        };
        values.push((share as i64).into());
        format!(
            "SELECT * FROM (SELECT j.rowid AS held_row, j.tenant_id AS held_tenant, j.id AS held_id FROM jobs j {{by:{index}}}
               WHERE {of_group} AND {}{}{is_active} ORDER BY j.rowid LIMIT ${} {{skip}}) h",
            due("j"),
            fits("j", company),
            values.len()
        )
    };
    let parts = alone.into_iter().chain(in_campaigns).map(&mut of_one).collect::<Vec<_>>();
    format!("{active}held AS MATERIALIZED ({})", parts.join(" UNION ALL "))
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
                if let Err(why) = claimed_job(row, host) {
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

/// The columns of a job for the worker that runs it.
fn contents() -> String {
    format!("{}, resume_point, timeout_used_ms", *rows::JOB_WITH_CONTENTS)
}

fn claimed_job(row: &Row, host: &WorkerId) -> Result<ClaimedJob, StoreError> {
    let job = rows::job(row)?;
    check_run(job.id.as_str(), row.int("run")?.unwrap_or(0))?;
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
