//! Redis goes away, or hangs, under a console: nothing that is shown looks live, and everything is read anew when it is back.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::page::{Page, row};
use crate::support::browser::Browser;
use crate::support::fleet::{Fleet, Handle, http_get};

const CONNECTION: &str = "document.getElementById('connection').innerText.trim()";

/// A fleet with two jobs, and how its gateway can be reached.
async fn fleet_with_jobs() -> (Fleet, Handle) {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    for id in ["j1", "j2"] {
        fleet.external_job("acme", id).await;
    }
    let gateway = fleet.gateway();
    fleet.worker();
    (fleet, gateway)
}

/// A page that notes what comes over its sockets (`window.heard`), and how many it has opened (`window.opened`).
async fn listening_page(fleet: &Fleet, gateway: Handle, hash: &str) -> Page {
    let (token, address) = (fleet.token("ann", "acme"), fleet.process(gateway).address.clone());
    let mut browser = Browser::open("about:blank").await;
    browser
        .before(
            "window.heard = []; window.opened = 0; window.WebSocket = class extends WebSocket { \
             constructor(...given) { super(...given); window.opened += 1; \
             this.addEventListener('message', ({ data }) => window.heard.push(JSON.parse(data))); } };",
        )
        .await;
    browser.navigate(&format!("http://{address}/?token={token}{hash}")).await;
    let mut page = Page { browser, address };
    page.until("the page is live", &format!("document.getElementById('connection') && {CONNECTION} === 'Live'")).await;
    page
}

/// Nothing of a list looks live, and nothing can be pressed.
async fn list_is_old(page: &mut Page) {
    page.until("the header says so", &format!("{CONNECTION} === 'Not live: Redis does not answer'")).await;
    page.says("since then news may be missing, because Redis does not answer. Buttons wait: nothing is sent until all is live again.")
        .await;
    page.until("the list is shown as old", "document.querySelector('.rows').hasAttribute('data-stale')").await;
    let waits = format!(
        "(() => {{ const b = {}.querySelector('.pause'); return b.disabled && b.title === 'Waits for Redis: nothing is sent until it is back'; }})()",
        row("j1")
    );
    page.until("its buttons wait and say for what", &waits).await;
}

async fn is_live(page: &mut Page) {
    page.until("the page is live", &format!("{CONNECTION} === 'Live' && document.getElementById('stale').hidden"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_dead_nothing_looks_live_and_all_is_read_anew_when_it_is_back() {
    let (mut fleet, gateway) = fleet_with_jobs().await;
    let mut page = listening_page(&fleet, gateway, "#/jobs").await;
    page.row_says("j1", "Running").await;
    let mut other = Page::open(&fleet, gateway, "ann", "#/jobs/j2").await;
    other.press("Later…").await;
    let before = page.eval("window.opened").await;

    fleet.redis.kill();
    list_is_old(&mut page).await;
    other
        .until(
            "the question says what it waits for",
            "document.querySelector('dialog[open]').innerText.includes('Waits for Redis: nothing is sent until it is back')",
        )
        .await;
    other.until("the job is shown as old", "document.querySelector('.resource').hasAttribute('data-stale')").await;
    other.eval("document.querySelector('dialog[open] form').requestSubmit()").await;
    // A page that is opened now says why there is nothing on it.
    page.go("#/schedules").await;
    page.says("Redis is away: this is read when it is back").await;
    page.go("#/jobs").await;
    // What somebody else changes meanwhile is told by nobody.
    let paused = sqlx::query("UPDATE jobs SET title = 'Changed meanwhile' WHERE id = 'j1'");
    paused.execute(&fleet.sql().await).await.expect("change the job");

    fleet.redis.restart();
    for page in [&mut page, &mut other] {
        is_live(page).await;
    }
    page.row_says("j1", "Changed meanwhile").await;
    assert_eq!(page.eval("window.opened").await, before, "its socket was never closed");
    other.go("#/schedules").await;
    other.says("Nothing is scheduled").await;
    page.press_until_row_says("j1", "Pause", "Paused").await;
    assert_eq!(fleet.status("acme", "j1").await, "paused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_hanging_nothing_looks_live_and_a_press_of_that_moment_is_found_out_about_and_done_once() {
    let (fleet, gateway) = fleet_with_jobs().await;
    let mut page = listening_page(&fleet, gateway, "#/jobs").await;
    page.row_says("j1", "Running").await;
    fleet.redis.signal(Signal::STOP);
    // Before anybody can know that Redis hangs.
    page.press_in_row("j1", "Pause").await;
    let unknown = "window.heard.filter((message) => message.error === 'outcome_unknown')";
    page.until("nobody knows what became of it", &format!("{unknown}.length > 0")).await;
    list_is_old(&mut page).await;
    page.row_says("j1", "Pausing: Redis is away, sent again when it is back").await;
    fleet.redis.signal(Signal::CONT);
    is_live(&mut page).await;
    page.row_says("j1", "Paused by you").await;
    assert_eq!(fleet.status("acme", "j1").await, "paused");
    // One press is one command, under one name.
    let names = format!("new Set({unknown}.map((message) => message.request_id)).size");
    assert_eq!(page.eval(&names).await, 1);
    let told = "[...document.querySelectorAll('#activity li')].filter((line) => line.innerText.includes('Paused by you')).length";
    assert_eq!(page.eval(told).await, 1);
    page.go("#/audit?resource=j1&event=accepted").await;
    page.until("it is in the trail once", "document.querySelectorAll('table tbody tr').length === 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_refused_because_redis_is_away_says_so_and_comes_in_when_it_is_back() {
    let (mut fleet, gateway) = fleet_with_jobs().await;
    let (token, address) = (fleet.token("ann", "acme"), fleet.process(gateway).address.clone());
    fleet.redis.kill();
    while http_get(&address, "/readyz").is_some_and(|(status, _)| status == 200) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let browser = Browser::open(&format!("http://{address}/?token={token}#/jobs")).await;
    let mut page = Page { browser, address };
    let says = |text: &str| format!("(document.getElementById('connection')?.innerText ?? '').startsWith({text:?})");
    page.until("it says why", &says("Not live, Redis or the database is away: trying again")).await;
    page.says("There is no connection: what is shown here may be old").await;
    page.until("the list is shown as old", "document.querySelector('.rows').hasAttribute('data-stale')").await;
    fleet.redis.restart();
    is_live(&mut page).await;
    page.row_says("j1", "Running").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_another_tenant_is_none_here_and_a_gateway_without_the_socket_is_said_to_be_one() {
    let (fleet, gateway) = fleet_with_jobs().await;
    fleet.external_job("globex", "theirs").await;
    let mut page = listening_page(&fleet, gateway, "#/jobs/theirs").await;
    page.says("There is no job theirs in your tenant, or you may not read it.").await;
    // The socket for what it prints is refused for good: nobody knocks again and again.
    let opened = page.eval("window.opened").await;
    page.go("#/jobs").await;
    page.row_says("j1", "Running").await;
    assert_eq!(page.eval("document.body.innerText.includes('theirs')").await, json!(false));
    assert_eq!(page.eval("window.opened").await, opened);

    // Something between that passes the page's socket on to another address.
    page.browser
        .before("window.WebSocket = class extends WebSocket { constructor(url, ...rest) { super(url.replace('/ws?', '/ws/jobs/nobody?'), ...rest); } };")
        .await;
    page.eval("location.reload()").await;
    let asks = "document.getElementById('sign-in')?.hidden === false \
                && document.getElementById('sign-in').innerText.includes('You are no longer connected: there is no such page. Sign in again to go on.')";
    page.until("it says that there is no such page", asks).await;
    assert_eq!(page.eval(CONNECTION).await, Value::from("Signed out"));
}
