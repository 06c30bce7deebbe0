//! SQL: the same tests on SQLite and on PostgreSQL.

mod support;

#[path = "store/campaigns.rs"]
mod campaigns;
#[path = "store/commands.rs"]
mod commands;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/rows.rs"]
mod rows;
#[path = "store/runs.rs"]
mod runs;
#[path = "store/selection.rs"]
mod selection;

use std::time::Duration;

use serde_json::json;
use wheelhouse::broker::scripts::audit::AuditEntry;
use wheelhouse::config;
use wheelhouse::domain::{Action, CampaignStatus, CommandId, JobStatus, Progress, Resource, UserId, WorkerId};
use wheelhouse::store::*;

/// A store, and a way to speak plain SQL to it.
struct Db {
    store: Store,
    url: String,
    _folder: Option<tempfile::TempDir>,
}

impl Db {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let url = format!("sqlite://{}", folder.path().join("test.db").display());
        Self::open(url, Some(folder)).await
    }

    async fn postgres() -> Self {
        Self::open(support::postgres::database().await, None).await
    }

    async fn open(url: String, folder: Option<tempfile::TempDir>) -> Self {
        let settings = config::Database { url: url.clone().into(), connections: 4 };
        let (one, two) = (Store::open(&settings).await.expect("open"), Store::open(&settings).await.expect("open"));
        assert!(!one.is_migrated().await.expect("read"));
        let (a, b) = tokio::join!(one.migrate(), two.migrate());
        a.expect("migrate");
        b.expect("migrate at the same time");
        assert!(one.is_migrated().await.expect("read"));
        Self { store: one, url, _folder: folder }
    }

    /// Plain SQL, as another program would send it.
    async fn sql(&self, text: &str) -> Result<(), sqlx::Error> {
        use sqlx::{AssertSqlSafe, Connection, Executor};
        let text = AssertSqlSafe(text.to_owned());
        if self.url.starts_with("sqlite") {
            sqlx::SqliteConnection::connect(&self.url).await?.execute(text).await?;
        } else {
            sqlx::PgConnection::connect(&self.url).await?.execute(text).await?;
        }
        Ok(())
    }
}

macro_rules! on_both {
    ($($part:ident::$name:ident)*) => {
        mod sqlite { $( #[tokio::test] async fn $name() { super::$part::$name(super::Db::sqlite().await).await } )* }
        mod postgres { $( #[tokio::test] async fn $name() { super::$part::$name(super::Db::postgres().await).await } )* }
    };
}

fn job(id: &str) -> Resource {
    Resource::parse(&format!("acme:job:{id}")).expect("resource")
}

fn worker(name: &str) -> WorkerId {
    name.parse().expect("worker")
}

fn change(resource: Resource, action: Action, fence: i64) -> Change {
    let user: UserId = "ann".parse().expect("user");
    Change { command: CommandId::generate(), resource, action, user, fence, run: None }
}

fn new_job(id: &str, campaign: Option<&str>) -> NewJob {
    NewJob {
        id: id.parse().expect("id"),
        tenant: job(id).tenant,
        campaign: campaign.map(|c| c.parse().expect("id")),
        job_type: "work".to_owned(),
        title: None,
        parameters: json!({"n": 1}),
        max_retries: 0,
        created_by: None,
    }
}

async fn claim(db: &Db, by: &str) -> Option<HostedJob> {
    db.store.claim_job(&worker(by), None, &["work".to_owned()]).await.expect("claim")
}

fn campaign(id: &str) -> Resource {
    Resource::parse(&format!("acme:campaign:{id}")).expect("resource")
}

/// A campaign with jobs `{id}-0`, `{id}-1`, …
async fn campaign_of(db: &Db, id: &str, jobs: usize) -> Resource {
    let jobs = (0..jobs).map(|n| new_job(&format!("{id}-{n}"), None)).collect();
    let resource = campaign(id);
    let made =
        NewCampaign { id: resource.id.clone(), tenant: resource.tenant.clone(), name: None, created_by: None, jobs };
    db.store.create_campaign(&made).await.expect("create");
    resource
}

async fn status(db: &Db, id: &str) -> JobStatus {
    db.store.job(&job(id)).await.expect("read").expect("row").status
}

fn failed(error: &str) -> RunEnd {
    RunEnd::Failed { error: error.to_owned(), permanent: false }
}

on_both! {
    commands::every_command_moves_a_row_as_the_table_says
    commands::the_same_command_again_gives_the_first_outcome_and_an_older_fence_changes_nothing
    commands::a_command_that_changes_nothing_still_makes_older_claims_void
    commands::the_same_command_twice_at_once_has_one_outcome
    commands::many_commands_at_once_each_succeed_or_fail_alone
    commands::a_resumed_job_without_a_host_waits_for_one
    campaigns::a_pause_that_comes_first_lets_no_other_job_start
    campaigns::a_cancelled_campaign_ends_what_waits_and_names_what_runs
    campaigns::a_worker_that_lets_go_of_a_job_of_a_cancelled_campaign_leaves_it_cancelled
    campaigns::no_campaign_is_completed_with_a_job_that_waits
    campaigns::cancelling_a_campaign_and_claiming_its_jobs_do_not_hinder_each_other
    campaigns::a_campaign_is_completed_once_all_its_jobs_have_ended
    runs::each_waiting_job_is_claimed_once_and_none_of_a_paused_campaign
    runs::what_cannot_run_does_not_hold_up_what_can
    runs::a_row_that_cannot_be_read_does_not_stop_the_queue
    runs::a_run_that_is_over_changes_nothing
    runs::a_job_handed_back_goes_on_where_it_was_and_a_dead_hosts_too
    runs::an_attached_job_is_never_handed_to_another_worker
    runs::a_failure_is_tried_again_until_the_retries_are_used_up
    rows::rows_of_other_systems_are_read_and_never_started
    rows::odd_rows_are_read_or_left_out_and_hide_no_others
    rows::the_character_nul_is_kept_out_of_the_way
    rows::lists_are_paged_and_keep_to_the_tenant
    rows::permissions_come_directly_and_by_role_with_a_version_that_plain_sql_raises
    rows::the_audit_trail_is_written_once_chained_and_append_only
    rows::a_changed_audit_row_is_noticed
    rows::any_number_of_programs_may_migrate_at_once
    rows::ping_answers_and_says_what_is_missing
    selection::those_of_many_that_are_there_are_found_in_one_question
    selection::a_filter_takes_the_newest_that_have_not_ended
}
