//! Several operators at once, and one who looks at what is not true any more: schedules, failed commands, refusals.

use super::page::Page;
use crate::support::browser::Browser;
use crate::support::fleet::{Fleet, http};

/// What somebody else does, over HTTP.
fn ask(fleet: &Fleet, address: &str, method: &str, path: &str) -> serde_json::Value {
    let bearer = format!("Bearer {}", fleet.token("ben", "acme"));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let (status, body) = http(address, method, path, &headers, "").expect("an answer");
    assert!((200..300).contains(&status), "{path}: {status} {body}");
    serde_json::from_str(&body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_operator_withdraws_vanishes_and_is_not_made_anew_by_a_change() {
    let mut fleet = Fleet::new();
    for user in ["ann", "ben"] {
        fleet.permit(user, "*").await;
    }
    fleet.external_job("acme", "j1").await;
    let name = "UPDATE jobs SET title = 'Letters to all customers' WHERE id = 'j1'";
    sqlx::query(name).execute(&fleet.sql().await).await.expect("name the job");
    let gateway = fleet.gateway();
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs/j1").await;
    let address = page.address.clone();
    let schedule = async |page: &mut Page, reason: &str| {
        page.press("Later…").await;
        page.eval(&format!("document.querySelector('dialog[open] input[type=text]').value = '{reason}'")).await;
        page.press_in_dialog("Schedule it").await;
        page.until("it is scheduled", "!document.querySelector('dialog[open]')").await;
    };
    let withdraw = |id: &str| ask(&fleet, &address, "DELETE", &format!("/api/v1/schedules/{id}"));
    let scheduled =
        || ask(&fleet, &address, "GET", "/api/v1/schedules")["schedules"].as_array().expect("a list").clone();

    // The job's own page says what is to come, until somebody takes it back.
    schedule(&mut page, "tonight").await;
    let upcoming = "document.querySelector('.upcoming').innerText";
    page.until(
        "it is announced",
        &format!("/Cancel is scheduled for .*in 1[45] min.* by ann: tonight/s.test({upcoming})"),
    )
    .await;
    let one = scheduled();
    withdraw(one[0]["schedule_id"].as_str().expect("id"));
    page.until("it is gone", &format!("{upcoming} === ''")).await;

    // While its line is read, and while a change of it is written.
    schedule(&mut page, "again").await;
    page.go("#/schedules").await;
    page.says("again").await;
    page.says("Letters to all customers").await;
    page.press("Change…").await;
    let one = scheduled();
    withdraw(one[0]["schedule_id"].as_str().expect("id"));
    page.says("Nothing is scheduled").await;
    page.press_in_dialog("Schedule it").await;
    let said = "document.querySelector('dialog[open]').innerText.includes('Nothing was scheduled: the former one has been withdrawn meanwhile')";
    page.until("the change is refused", said).await;
    assert_eq!(scheduled(), Vec::<serde_json::Value>::new(), "nobody has brought it back");
    page.press_in_dialog("Leave it").await;

    // At the very moment: the line is still there, the schedule is not.
    page.go("#/jobs/j1").await;
    schedule(&mut page, "once more").await;
    page.go("#/schedules").await;
    page.says("once more").await;
    let one = scheduled();
    withdraw(one[0]["schedule_id"].as_str().expect("id"));
    page.eval("[...document.querySelectorAll('#content button')].find((b) => b.innerText === 'Withdraw')?.click()")
        .await;
    page.says("Nothing is scheduled").await;
    assert_eq!(fleet.status("acme", "j1").await, "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_command_that_another_operator_dropped_is_not_asked_for_again() {
    let mut fleet = Fleet::new();
    for user in ["ann", "ben"] {
        fleet.permit(user, "*").await;
    }
    for id in ["j1", "j2"] {
        fleet.external_job("acme", id).await;
    }
    sqlx::query("UPDATE jobs SET status = 'completed'").execute(&fleet.sql().await).await.expect("end the jobs");
    let gateway = fleet.gateway();
    fleet.worker();
    let mut page = Page::open(&fleet, gateway, "ann", "#/failed").await;
    let address = page.address.clone();
    for id in ["j1", "j2"] {
        ask(&fleet, &address, "POST", &format!("/api/v1/jobs/{id}/pause"));
    }
    let rows = "document.querySelectorAll('table tbody tr').length";
    page.until("both have failed", &format!("{rows} === 2")).await;
    let drop = |id: &serde_json::Value| {
        ask(&fleet, &address, "DELETE", &format!("/api/v1/queue/failed/{}", id.as_str().expect("id")))
    };
    let failed = ask(&fleet, &address, "GET", "/api/v1/queue/failed")["failed"].clone();
    drop(&failed[0]["command_id"]);
    page.until("what another has dropped vanishes", &format!("{rows} === 1")).await;
    // Pressed before the page can know of it: it says why nothing was done, and the line goes.
    let token = fleet.token("ben", "acme");
    let path = format!("/api/v1/queue/failed/{}", failed[1]["command_id"].as_str().expect("id"));
    page.eval(&format!(
        "fetch('{path}', {{ method: 'DELETE', headers: {{ Authorization: 'Bearer {token}' }} }}).then(() => \
         [...document.querySelectorAll('#content button')].find((b) => b.innerText === 'Requeue').click())"
    ))
    .await;
    page.says("Requeue: There is no such failed command: it was requeued or dropped").await;
    page.says("No command has failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_there_is_no_connection_is_said_in_words() {
    let mut fleet = Fleet::new();
    fleet.set("LIMITS__CONNECTIONS_PER_USER", "1");
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let gateway = fleet.gateway();
    fleet.worker();
    let header = "document.getElementById('connection').innerText";
    let mut page = Page::open(&fleet, gateway, "ann", "#/jobs").await;
    page.row_says("j1", "Running").await;

    // 4429: another tab of the same user. It comes in as soon as there is a place.
    let address = page.address.clone();
    let ann = format!("http://{address}/?token={}#/jobs", fleet.token("ann", "acme"));
    let mut second = Browser::open(&ann).await;
    let crowded = format!(
        "{header} !== undefined && {header}.startsWith('Not live, too many connections or messages: trying again')"
    );
    second.until("the second tab says why", &format!("document.getElementById('connection') && {crowded}")).await;
    drop(page);
    second.until("it comes in", &format!("{header}.trim() === 'Live'")).await;
    let mut page = Page { browser: second, address: address.clone() };

    // 4403: access that is taken away while the page is open.
    let revoked = fleet.command(&["revoke", "--user", "ann", "*"]).output().expect("revoke");
    assert!(revoked.status.success(), "{revoked:?}");
    page.until("the page asks", "document.getElementById('sign-in').hidden === false").await;
    let why = page.eval("document.getElementById('sign-in-why').innerText").await;
    assert_eq!(why, "You are no longer connected: access was revoked. Sign in again to go on.");
    assert_eq!(page.eval("document.querySelectorAll('.rows .row').length").await, 1, "what was there stays in sight");
}
