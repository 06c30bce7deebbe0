//! Each page of the console, and what is done on it.

use serde_json::json;

use super::page::{Page, row};
use crate::support::fleet::{Fleet, http};

async fn statuses(fleet: &Fleet, ids: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for id in ids {
        all.push(fleet.status("acme", id).await);
    }
    all
}

fn post(fleet: &Fleet, address: &str, path: &str, body: &serde_json::Value) -> String {
    let bearer = format!("Bearer {}", fleet.token("ann", "acme"));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let (status, body) = http(address, "POST", path, &headers, &body.to_string()).expect("an answer");
    assert!((200..300).contains(&status), "{path}: {status} {body}");
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_paused_at_once_after_a_count_and_the_selection_is_in_the_address() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    for id in ["j1", "j2", "j3"] {
        fleet.external_job("acme", id).await;
    }
    let gateway = fleet.gateway();
    fleet.worker();
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs").await;
    for id in ["j1", "j3"] {
        page.row_says(id, "Running").await;
        page.eval(&format!("{}.querySelector('.pick').click()", row(id))).await;
    }
    page.says("2 selected").await;
    // A reload, or a colleague's browser, has the same selection.
    page.reload().await;
    page.until("the selection is back", "document.querySelectorAll('.row .pick:checked').length === 2").await;
    page.press("Pause…").await;
    page.until(
        "the count and the cost are told",
        "document.querySelector('dialog[open]').innerText.includes('Pause 2 of 2. It costs 1 of your commands per minute.')",
    )
    .await;
    assert_eq!(statuses(&fleet, &["j1", "j2", "j3"]).await, ["running"; 3], "nothing was done for the count");
    page.press_in_dialog("Pause 2").await;
    page.until("the outcome is told", "document.querySelector('dialog[open]').innerText.includes('2 done.')").await;
    page.press_in_dialog("Close").await;
    assert_eq!(statuses(&fleet, &["j1", "j2", "j3"]).await, ["paused", "running", "paused"]);
    page.row_says("j1", "Paused").await;
    page.row_says("j3", "Paused").await;

    // All that match: of the running ones there is one.
    page.go("#/jobs?status=running").await;
    page.until("only what runs is listed", "document.querySelectorAll('.rows .row').length === 1").await;
    page.press("All that match…").await;
    let counted = "document.querySelector('dialog[open]').innerText.includes('Pause 1 of 1.')";
    page.until("the count is told", counted).await;
    page.press_in_dialog("Pause 1").await;
    page.until("the outcome is told", "document.querySelector('dialog[open]').innerText.includes('1 done.')").await;
    assert_eq!(statuses(&fleet, &["j2"]).await, ["paused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_a_thousand_draws_only_what_is_in_view_and_keeps_its_filters_in_the_address() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let sql = fleet.sql().await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO jobs \
                (id, tenant_id, job_type, title, status) SELECT 'many-' || i, 'acme', 'import', 'Number ' || i, \
                CASE WHEN i % 333 = 0 THEN 'paused' ELSE 'completed' END FROM n";
    sqlx::query(many).execute(&sql).await.expect("make the jobs");
    let gateway = fleet.gateway();
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs").await;
    let rows = "document.querySelectorAll('.rows .row').length";
    page.until("rows are drawn", &format!("{rows} > 5")).await;
    // Down to the very end, page after page.
    page.until(
        "all thousand have been loaded",
        "(() => { scrollTo(0, document.documentElement.scrollHeight); \
         return document.getElementById('content').innerText.includes('1,000 jobs'); })()",
    )
    .await;
    let drawn = page.eval(rows).await.as_u64().expect("a number");
    assert!(drawn < 60, "{drawn} rows are drawn");

    let set = "(() => { const status = document.querySelector('.filters select'); status.value = 'paused'; \
               status.dispatchEvent(new Event('change')); return true; })()";
    page.eval(set).await;
    page.until("the list is filtered", &format!("{rows} === 3")).await;
    assert_eq!(page.eval("location.hash").await, "#/jobs?status=paused");
    page.reload().await;
    page.until(
        "the filter is still there",
        &format!("{rows} === 3 && document.querySelector('.filters select').value === 'paused'"),
    )
    .await;
    // By keys alone: to the first row, into it, and away again.
    page.eval("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'j', bubbles: true }))").await;
    page.until("the first row has the focus", "document.activeElement.classList.contains('title')").await;
    page.eval("document.activeElement.click()").await;
    page.until("its page is open", "/^#.jobs.many-/.test(location.hash) && !document.querySelector('.rows')").await;
    for key in ["g", "c"] {
        page.eval(&format!("document.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }}))"))
            .await;
    }
    page.until("the campaigns are open", "location.hash === '#/campaigns'").await;
    page.eval("document.dispatchEvent(new KeyboardEvent('keydown', { key: '?', bubbles: true }))").await;
    page.until("the sheet of keys is open", "document.getElementById('help').open").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobs_page_tells_who_did_what_and_a_command_for_later_can_be_changed_and_withdrawn() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let gateway = fleet.gateway();
    fleet.worker();
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs/j1").await;
    page.press("Cancel").await;
    page.eval("document.querySelector('.confirm input').value = 'never mind'").await;
    page.press("Keep").await;
    page.press("Pause").await;
    page.says("Paused by you").await;
    let history = "[...document.querySelectorAll('section table tbody tr')].map((row) => row.innerText).join()";
    page.until("the pause is in the history", &format!("/Pause.*ann.*Done: paused.*\\d m?s/s.test({history})")).await;

    page.press("Later…").await;
    let reason = "document.querySelector('dialog[open] input[type=text]').value = 'for the night'";
    page.eval(reason).await;
    page.press_in_dialog("Schedule it").await;
    page.says("Cancel is scheduled for").await;
    page.go("#/schedules").await;
    page.says("for the night").await;
    page.press("Change…").await;
    page.eval("document.querySelector('dialog[open] input[type=datetime-local]').value = '2027-01-31T22:00'").await;
    page.press_in_dialog("Schedule it").await;
    page.says("31 Jan 2027, 22:00:00").await;
    let count = "document.querySelectorAll('table tbody tr').length";
    page.until("the old one is gone", &format!("{count} === 1")).await;
    page.press("Withdraw").await;
    page.says("Nothing is scheduled").await;
    assert_eq!(fleet.status("acme", "j1").await, "paused");

    page.go("#/audit?resource=j1&event=withdrawn").await;
    page.until("both are in the trail", &format!("{count} === 2")).await;
    page.go("#/jobs/nobody").await;
    page.says("There is no job nobody in your tenant").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_command_is_requeued_and_dropped() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    sqlx::query("UPDATE jobs SET status = 'completed'").execute(&fleet.sql().await).await.expect("end the job");
    let gateway = fleet.gateway();
    fleet.worker();
    let mut page = Page::open(&fleet, gateway, "ann", "#/failed").await;
    page.says("No command has failed").await;
    let address = page.address.clone();
    post(&fleet, &address, "/api/v1/jobs/j1/pause", &json!({}));
    page.says("Job not found or already completed").await;
    let newest = "fetch('/api/v1/queue/failed', { headers: { Authorization: 'Bearer ' + sessionStorage.getItem('wheelhouse.token') } })\
                  .then((answer) => answer.json()).then(({ failed }) => failed[0]?.failed_at ?? null)";
    let before = page.eval(newest).await;
    page.press("Requeue").await;
    // It runs again, and fails for the same reason.
    page.until("it has failed again", &format!("{newest}.then((at) => at !== null && at !== {before})")).await;
    page.says("Job not found or already completed").await;
    // Again where the page showed what stood there before.
    let dropped = "(() => { const content = document.getElementById('content'); \
         if (content.innerText.includes('No command has failed')) return true; \
         [...content.querySelectorAll('button')].find((b) => b.innerText.trim() === 'Drop' && !b.disabled)?.click(); \
         return false; })()";
    page.until("it is dropped", dropped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_listed_and_a_partly_failed_campaign_does_not_look_as_if_all_were_well() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let sql = fleet.sql().await;
    for text in [
        "INSERT INTO campaigns (id, tenant_id, name, is_active, status) VALUES ('c1', 'acme', 'Half of it', 1, 'completed')",
        "INSERT INTO jobs (id, tenant_id, job_type, status, campaign_id) VALUES ('a', 'acme', 'x', 'completed', 'c1'), \
         ('b', 'acme', 'x', 'failed', 'c1')",
    ] {
        sqlx::query(text).execute(&sql).await.expect("make the campaign");
    }
    let gateway = fleet.gateway();
    let mut page = Page::open(&fleet, gateway, "ann", "#/workers").await;
    page.says("No worker is alive").await;
    fleet.worker();
    page.until("the worker is listed", "document.querySelectorAll('table tbody tr').length === 1").await;
    page.go("#/campaigns").await;
    page.row_says("c1", "Ended, 1 failed").await;
    assert_eq!(page.eval(&format!("{}.dataset.status", row("c1"))).await, "partly");
    page.go("#/campaigns/c1").await;
    page.says("Ended, 1 failed").await;
    page.eval("document.querySelector('a.jobs-of').click()").await;
    page.until(
        "its jobs are listed",
        "location.hash === '#/jobs?campaign_id=c1' && document.querySelectorAll('.rows .row').length === 2",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ends_is_asked_for_once_and_the_page_goes_on_where_it_was() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let gateway = fleet.gateway();
    fleet.worker();
    let made = fleet.command(&["token", "--user", "ann", "--tenant", "acme", "--ttl", "4s"]).output().expect("a token");
    let token = String::from_utf8(made.stdout).expect("text").trim().to_owned();
    let address = fleet.process(gateway).address.clone();
    let browser = crate::support::browser::Browser::open(&format!("http://{address}/?token={token}#/jobs/j1")).await;
    let mut page = Page { browser, address };
    // Before the page is loaded on a busy machine, or afterwards.
    page.until("the page asks for a token", "document.getElementById('sign-in')?.hidden === false").await;
    let fresh = fleet.token("ann", "acme");
    page.eval(&format!(
        "document.getElementById('token').value = '{fresh}'; document.querySelector('#sign-in button[type=submit]').click()"
    ))
    .await;
    page.until("the page is live", "document.getElementById('connection').innerText.trim() === 'Live'").await;
    page.says("by another system").await;
    assert_eq!(page.eval("location.hash").await, "#/jobs/j1");
    page.press("Pause").await;
    page.says("Paused by you").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_program_prints_is_shown_as_it_comes_and_stays_where_somebody_reads() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    fleet.worker();
    let flag = |name: &str| fleet.folder().join(name);
    let wait = |name: &str| format!("while [ ! -e {} ]; do sleep 0.05; done", flag(name).display());
    let script = format!(
        "echo first line; {}; echo on fire >&2; {}; i=0; while [ $i -lt 1500 ]; do echo line $i; i=$((i+1)); done; \
         echo the last of many; {}; echo and one more",
        wait("a"),
        wait("b"),
        wait("c")
    );
    let arguments = ["run", "--tenant", "acme", "--job-id", "printer", "--", "sh", "-c", &script];
    let mut program = fleet.command(&arguments).spawn().expect("run");
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs/printer").await;
    page.says("first line").await;
    std::fs::write(flag("a"), "").expect("write");
    let burns = "document.querySelector('.output [data-stream=stderr]')?.innerText.includes('on fire') ?? false";
    page.until("what goes wrong stands apart", burns).await;
    let timed =
        "[...document.querySelectorAll('.output time')].every((time) => !Number.isNaN(Date.parse(time.dateTime)))";
    assert_eq!(page.eval(timed).await, true);
    std::fs::write(flag("b"), "").expect("write");
    page.says("the last of many").await;
    let drawn = "document.querySelectorAll('.output > div').length";
    page.until("as many lines as are kept", &format!("{drawn} === 1000")).await;
    let at_end = "(() => { const log = document.querySelector('.output'); \
                  return log.scrollTop + log.clientHeight >= log.scrollHeight - 24; })()";
    page.until("the end is followed", at_end).await;
    page.eval("document.querySelector('.output').scrollTop = 3000").await;
    page.until(
        "it does not follow any more",
        "document.querySelector('.section-head button:not([hidden])')?.innerText === 'Follow the end'",
    )
    .await;
    std::fs::write(flag("c"), "").expect("write");
    page.until("more has come", "document.querySelector('.output').innerText.includes('and one more')").await;
    assert_eq!(page.eval(at_end).await, false, "whoever reads is left where they are");
    page.press("Follow the end").await;
    page.until("the end is followed", at_end).await;
    assert!(program.wait().expect("wait").success());
    page.says("Completed").await;
    assert_eq!(page.eval(drawn).await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_failed_is_run_again_alone_and_many_at_once_and_the_links_lead_both_ways() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.permit("eve", "jobs.read").await;
    let sql = fleet.sql().await;
    for text in [
        "INSERT INTO campaigns (id, tenant_id, name, is_active, status) VALUES ('c1', 'acme', 'Half of it', 1, 'completed')",
        "INSERT INTO jobs (id, tenant_id, job_type, status, campaign_id, parameters, origin) VALUES \
         ('ok', 'acme', 'x', 'completed', 'c1', '{}', 'queued'), ('bad-1', 'acme', 'x', 'failed', 'c1', '{}', 'queued'), \
         ('bad-2', 'acme', 'x', 'failed', 'c1', '{}', 'queued'), \
         ('alone', 'acme', 'x', 'failed', NULL, '{\"a\":1}', 'queued'), ('of-others', 'acme', 'x', 'failed', NULL, '{}', 'external')",
    ] {
        sqlx::query(text).execute(&sql).await.expect("make them");
    }
    let gateway = fleet.gateway();
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs/alone").await;
    page.press("Run again").await;
    page.until("the new job is open", "/^#.jobs./.test(location.hash) && location.hash !== '#/jobs/alone'").await;
    page.says("the job that it is a rerun of").await;
    page.says("Pending").await;
    page.eval("[...document.querySelectorAll('.facts a')].find((a) => a.innerText === 'alone').click()").await;
    page.says("a rerun of it").await;

    page.go("#/campaigns/c1").await;
    page.press("Run the failed ones again…").await;
    let dialog = "document.querySelector('dialog[open]')?.innerText ?? ''";
    page.until("the count is told", &format!("({dialog}).includes('Run again 2 of 2. Each becomes a new job')")).await;
    let count = "SELECT COUNT(*) FROM jobs WHERE rerun_of LIKE 'bad-%'";
    let made = async || sqlx::query_scalar::<_, i64>(count).fetch_one(&sql).await.expect("count");
    assert_eq!(made().await, 0, "nothing was done for the count");
    page.press_in_dialog("Run again 2").await;
    page.until("the outcome is told", &format!("({dialog}).includes('2 run again as new jobs.')")).await;
    assert_eq!(made().await, 2);
    page.press_in_dialog("Close").await;
    // Those have been run again already.
    page.press("Run the failed ones again…").await;
    page.until("nothing is left", &format!("({dialog}).includes('Run again 0 of 0.')")).await;

    page.press_in_dialog("Leave it").await;
    page.go("#/jobs/of-others").await;
    page.press("Run again").await;
    page.says("put here by another system, and no worker knows how to run it").await;
    let mut eve = Page::open(&fleet, gateway, "eve", "#/jobs/bad-1").await;
    eve.press("Run again").await;
    eve.says("You may not run jobs again: it takes the permission jobs.create").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_page_says_whether_the_trail_is_as_it_was_written() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let gateway = fleet.gateway();
    fleet.worker();
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs/j1").await;
    page.press("Pause").await;
    page.says("Paused by you").await;
    page.go("#/audit").await;
    page.until("both rows are in the trail", "document.querySelectorAll('table tbody tr').length >= 2").await;
    page.press("Check again").await;
    page.says("Intact: all").await;
    // By somebody who may do anything with the database.
    let forged = "DROP TRIGGER command_audit_u; UPDATE command_audit SET user_id = 'eve' WHERE id = 1";
    sqlx::raw_sql(forged).execute(&fleet.sql().await).await.expect("forge");
    page.press("Check again").await;
    page.says("changed at entry 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_page_has_the_newest_first_older_ones_behind_a_button_and_moves_no_row_under_a_reader() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let sql = fleet.sql().await;
    // As a worker would write them, but for the hashes.
    let written = async |from: i64, to: i64| {
        let text = format!(
            "WITH RECURSIVE n (id) AS (SELECT {from} UNION ALL SELECT id + 1 FROM n WHERE id < {to}) \
             INSERT INTO command_audit (id, at, tenant_id, user_id, resource_kind, resource_id, action, event, stream_id, previous_hash, hash) \
             SELECT id, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), 'acme', 'bob', 'job', 'j' || id, 'pause', 'denied', id || '-0', '', 'h' || id FROM n"
        );
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(&sql).await.expect("write");
    };
    written(1, 150).await;
    let gateway = fleet.gateway();
    let mut page = Page::open(&fleet, gateway, "ann", "#/audit?user=bob").await;
    let rows = "[...document.querySelectorAll('table tbody tr')]";
    let shown = |first: i64, last: i64, many: usize| {
        format!(
            "{rows}.length === {many} && {rows}[0].innerText.includes('j{first}\\t') && {rows}.at(-1).innerText.includes('j{last}\\t')"
        )
    };
    page.until("the newest hundred", &shown(150, 51, 100)).await;
    // Nobody reads: what comes is shown.
    written(151, 151).await;
    page.until("the new one", &shown(151, 52, 100)).await;
    page.press("Show more").await;
    page.until("all of them", &shown(151, 1, 151)).await;
    written(152, 154).await;
    page.until("they wait", "document.querySelector('.fresh:not([hidden])')?.innerText === 'Show 3 newer'").await;
    assert_eq!(page.eval(&shown(151, 1, 151)).await, true, "no row has moved");
    page.press("Show 3 newer").await;
    page.until("the newest hundred again", &shown(154, 55, 100)).await;
    assert_eq!(page.eval("Boolean(document.querySelector('.fresh:not([hidden])'))").await, false);
}
