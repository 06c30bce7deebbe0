//! SQL: the same tests on SQLite and on PostgreSQL.

mod support;

#[path = "store/announcements.rs"]
mod announcements;
#[path = "store/audit.rs"]
mod audit;
#[path = "store/audit_list.rs"]
mod audit_list;
#[path = "store/audit_retention.rs"]
mod audit_retention;
#[path = "store/audit_verify.rs"]
mod audit_verify;
#[path = "store/campaigns.rs"]
mod campaigns;
#[path = "store/commands.rs"]
mod commands;
#[path = "store/failed_items.rs"]
mod failed_items;
#[path = "store/failover.rs"]
mod failover;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/lists.rs"]
mod lists;
#[path = "store/maintenance.rs"]
mod maintenance;
#[path = "store/odd_rows.rs"]
mod odd_rows;
#[path = "store/plans.rs"]
mod plans;
#[path = "store/prune.rs"]
mod prune;
#[path = "store/queue.rs"]
mod queue;
#[path = "store/reruns.rs"]
mod reruns;
#[path = "store/revocations.rs"]
mod revocations;
#[path = "store/rows.rs"]
mod rows;
#[path = "store/runs.rs"]
mod runs;
#[path = "store/selection.rs"]
mod selection;
#[path = "store/times.rs"]
mod times;

use std::time::Duration;

use serde_json::json;
use wheelhouse::broker::scripts::audit::AuditEntry;
use wheelhouse::config;
use wheelhouse::domain::{
    Action, CampaignStatus, CommandId, JobCounts, JobStatus, JsonText, Progress, Resource, UserId, WorkerId,
};
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
        self.execute(text).await.map(|_| ())
    }

    /// How many rows plain SQL changed.
    async fn changed(&self, text: &str) -> u64 {
        self.execute(text).await.expect("plain SQL")
    }

    /// Another program that holds rows of PostgreSQL, as this statement does, until it says `ROLLBACK`.
    async fn holder(&self, statement: &str) -> sqlx::PgConnection {
        use sqlx::{AssertSqlSafe, Connection, Executor};
        let mut holder = sqlx::PgConnection::connect(&self.url).await.expect("connect");
        holder.execute(AssertSqlSafe(format!("BEGIN; {statement}"))).await.expect("hold");
        holder
    }

    /// From now on no job can become `failed`.
    async fn refuses_to_fail_jobs(&self) {
        let texts: &[&str] = if self.url.starts_with("sqlite") {
            &[
                "CREATE TRIGGER refused BEFORE UPDATE ON jobs WHEN NEW.status = 'failed' BEGIN SELECT RAISE(ABORT, 'no'); END",
            ]
        } else {
            &[
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
                "CREATE TRIGGER refused BEFORE UPDATE ON jobs FOR EACH ROW WHEN (NEW.status = 'failed') EXECUTE FUNCTION refuse()",
            ]
        };
        for text in texts {
            self.sql(text).await.expect("trigger");
        }
    }

    async fn execute(&self, text: &str) -> Result<u64, sqlx::Error> {
        use sqlx::{AssertSqlSafe, Connection, Executor};
        let text = AssertSqlSafe(text.to_owned());
        Ok(if self.url.starts_with("sqlite") {
            sqlx::SqliteConnection::connect(&self.url).await?.execute(text).await?.rows_affected()
        } else {
            sqlx::PgConnection::connect(&self.url).await?.execute(text).await?.rows_affected()
        })
    }
}

/// How many there are.
fn migrations() -> usize {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
    std::fs::read_dir(folder).expect("the migrations").count()
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

fn change(resource: Resource, action: Action, fence: i64) -> CommandChange {
    let user: UserId = "ann".parse().expect("user");
    CommandChange {
        command: CommandId::generate(),
        resource,
        action,
        user,
        fence,
        run: None,
        request_id: None,
        record: None,
    }
}

/// A value as the text that the system keeps.
fn exact(value: serde_json::Value) -> JsonText {
    JsonText::of(&value).expect("JSON")
}

fn new_job(id: &str, campaign: Option<&str>) -> NewJob {
    let Resource { tenant, id, .. } = job(id);
    let campaign = campaign.map(|c| c.parse().expect("id"));
    NewJob { campaign, parameters: exact(json!({"n": 1})), ..NewJob::new(tenant, id, "work") }
}

async fn claim(db: &Db, by: &str) -> Option<ClaimedJob> {
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
    runs::what_many_runs_say_is_written_together_and_of_each_only_what_is_its_own
    commands::every_command_moves_a_row_as_the_table_says
    commands::the_same_command_again_gives_the_first_outcome_and_an_older_fence_changes_nothing
    commands::a_command_that_changes_nothing_still_makes_older_claims_void
    commands::a_refused_command_still_makes_older_claims_void
    commands::a_command_that_was_given_up_is_applied_by_no_older_claim
    commands::the_same_command_twice_at_once_has_one_outcome
    commands::many_commands_at_once_each_succeed_or_fail_alone
    commands::commands_on_one_job_at_once_each_see_what_the_one_before_has_done
    commands::commands_of_two_programs_on_the_same_jobs_leave_what_the_later_claims_want
    commands::a_resumed_job_without_a_host_waits_for_one
    campaigns::a_pause_that_comes_first_lets_no_other_job_start
    campaigns::a_cancelled_campaign_ends_what_waits_and_names_what_runs
    campaigns::a_worker_that_lets_go_of_a_job_of_a_cancelled_campaign_leaves_it_cancelled
    campaigns::no_campaign_is_completed_with_a_job_that_waits
    campaigns::cancelling_a_campaign_and_claiming_its_jobs_do_not_hinder_each_other
    campaigns::a_campaign_is_completed_once_all_its_jobs_have_ended
    campaigns::ends_are_counted_by_minute_whoever_writes_them
    campaigns::the_counts_of_a_campaign_are_those_of_its_rows_whoever_changes_them
    campaigns::an_open_campaign_is_completed_only_after_it_was_closed
    announcements::what_a_row_says_that_nobody_was_told_is_owed_until_it_is_said
    prune::old_jobs_go_with_what_belongs_to_them_and_others_stay
    prune::many_old_jobs_of_one_moment_are_looked_at_step_by_step
    lists::every_filter_and_order_gives_the_rows_that_fit_in_pages
    lists::a_page_goes_on_where_the_last_one_ended_while_rows_change
    lists::no_list_reads_or_sorts_the_whole_table
    lists::campaigns_are_filtered_and_sorted_too
    reruns::a_rerun_is_a_new_job_with_the_same_parameters_linked_both_ways
    reruns::the_failed_jobs_of_a_campaign_are_run_again_once
    reruns::the_newest_thousand_lines_of_a_job_are_kept_in_order
    times::the_time_of_a_pause_is_no_running_time
    times::the_time_of_other_systems_rows_is_counted_too
    times::a_job_says_who_hosts_it_and_a_worker_what_it_has
    rows::lists_leave_out_what_a_job_holds_and_cut_down_what_is_long
    rows::a_page_with_contents_ends_before_they_are_too_many_bytes
    runs::a_long_error_is_cut_down_and_kept_whole_beside
    runs::ends_that_come_together_each_say_what_became_of_their_run
    runs::a_row_that_is_held_keeps_no_other_end_waiting
    runs::each_waiting_job_is_claimed_once_and_none_of_a_paused_campaign
    runs::what_cannot_run_does_not_hold_up_what_can
    runs::a_row_that_cannot_be_read_does_not_stop_the_queue
    runs::a_row_that_cannot_be_read_is_put_aside_with_its_claim_or_not_at_all
    runs::a_run_that_is_over_changes_nothing
    runs::a_job_handed_back_goes_on_where_it_was_and_a_dead_hosts_too
    runs::a_run_that_goes_on_elsewhere_has_what_is_left_of_its_time_and_a_retry_all_of_it
    runs::a_job_in_which_worker_after_worker_dies_has_failed_unless_it_gets_further
    runs::an_attached_job_is_never_handed_to_another_worker
    runs::a_failure_is_tried_again_until_the_retries_are_used_up
    runs::a_paused_attached_job_of_a_dead_host_is_resumed_and_has_failed
    runs::a_job_in_the_wait_for_its_retry_can_be_paused_resumed_and_cancelled
    queue::the_job_that_is_claimed_is_the_one_that_a_look_at_all_of_them_would_choose
    queue::jobs_that_are_claimed_together_are_those_that_would_come_one_by_one
    queue::a_tenant_with_very_many_jobs_does_not_hold_up_the_others
    queue::every_tenant_gets_its_turn_however_many_there_are
    queue::a_retry_that_a_clock_a_day_ahead_has_written_waits_no_longer_than_retries_do
    queue::a_look_that_takes_all_that_waits_says_so_and_no_other_does
    queue::a_job_in_which_workers_died_is_for_a_worker_that_runs_nothing_else
    queue::a_job_is_taken_renewed_and_ended_without_reading_the_others_that_wait
    runs::a_worker_that_said_that_it_leaves_has_not_died_in_its_jobs
    runs::an_attached_job_says_since_when_its_host_has_not_been_heard_of
    queue::a_job_behind_many_that_cannot_run_is_found_among_many_campaigns
    failover::one_request_is_carried_out_once_whatever_command_it_comes_as
    failover::a_command_has_one_end_whichever_redis_brings_another
    failover::the_trail_has_each_event_of_a_command_once_whoever_brings_it_again
    failover::what_is_withdrawn_or_denied_at_its_time_is_not_carried_out_by_a_redis_that_has_lost_that
    failed_items::each_failed_item_is_one_row_with_its_newest_error_in_order
    failed_items::no_more_than_ten_thousand_failed_items_of_a_job_are_kept
    maintenance::a_turn_is_taken_by_one_and_comes_again
    maintenance::campaigns_that_were_left_with_nothing_to_do_are_found
    maintenance::what_commands_did_long_ago_is_forgotten_in_batches
    rows::rows_of_other_systems_are_read_and_never_started
    odd_rows::ten_thousand_rows_that_cannot_be_read_cost_others_no_look
    odd_rows::rows_that_cannot_be_read_are_met_by_many_workers_at_once
    odd_rows::no_value_that_plain_sql_can_write_stops_other_rows
    odd_rows::a_run_after_which_there_can_be_no_other_is_said_to_be_the_last
    odd_rows::a_row_that_names_nobody_who_could_have_it_is_nobodys_and_says_so
    odd_rows::rows_that_could_not_be_read_lately_are_counted_and_the_newest_is_named
    odd_rows::no_counter_that_plain_sql_can_write_stops_those_who_add_to_it
    odd_rows::counters_that_were_odd_before_the_migration_are_put_right_by_it
    odd_rows::campaigns_and_announcements_that_cannot_be_read_take_no_places_of_others
    rows::odd_rows_are_read_or_left_out_and_hide_no_others
    rows::the_character_nul_is_kept_out_of_the_way
    rows::numbers_keep_every_digit
    rows::lists_are_paged_and_keep_to_the_tenant
    rows::permissions_come_directly_and_by_role_with_a_version_that_plain_sql_raises
    audit::the_trail_is_written_once_chained_and_append_only
    audit::plain_sql_sorts_the_trail_by_its_times
    audit::a_hash_is_made_of_what_it_always_was
    audit::an_entry_that_comes_again_is_written_once_and_a_new_one_with_an_older_number_is_written
    audit::whoever_reads_on_from_the_last_row_misses_none_of_several_writers
    audit::rows_are_found_by_each_filter_and_by_all_together
    audit_list::rows_that_came_late_are_found_by_their_times
    audit_list::no_page_of_the_trail_reads_the_rows_in_between
    audit::texts_that_a_database_cannot_hold_do_not_stop_the_trail
    audit_verify::an_untouched_trail_is_intact_however_long
    audit_verify::every_change_by_hand_is_found_and_named
    audit_verify::a_row_put_in_or_changed_with_hashes_that_fit_is_found_too
    audit_verify::a_trail_written_anew_from_end_to_end_is_found_by_a_hash_kept_elsewhere
    audit_verify::a_row_put_in_behind_the_last_one_stops_the_trail_and_nothing_is_lost
    audit_verify::it_is_intact_while_rows_are_added_and_old_ones_removed
    audit_retention::old_rows_go_in_order_and_the_rest_can_still_be_verified
    audit_retention::nothing_is_deleted_by_hand_and_the_horizon_moves_only_over_old_rows
    audit_retention::a_broken_row_stays_however_old_it_is
    audit_retention::rows_put_in_behind_the_horizon_are_found
    audit_retention::the_horizon_can_be_moved_over_old_rows_by_hand
    audit_retention::what_was_removed_is_on_record_with_who_when_and_by_which_clocks
    audit_retention::of_two_clocks_the_one_that_is_behind_says_what_is_old
    audit_retention::what_was_removed_by_clocks_that_were_ahead_is_found
    rows::permissions_and_roles_may_be_for_one_tenant
    rows::any_number_of_programs_may_migrate_at_once
    revocations::revocations_are_read_from_where_one_stopped_and_removals_are_noticed
    rows::ping_answers_and_says_what_is_missing
    selection::names_of_many_are_found_in_one_question
    selection::those_of_many_that_are_there_are_found_in_one_question
    selection::a_filter_takes_the_newest_that_have_not_ended
}
