//! The first page: names instead of ids, and how many jobs have ended, however many that are.

use serde_json::json;

use super::page::Page;
use crate::support::browser::Browser;
use crate::support::fleet::{Fleet, http};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overview_counts_every_end_and_calls_what_happened_by_name_without_asking_for_each() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let sql = fleet.sql().await;
    for text in [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) INSERT INTO jobs \
         (id, tenant_id, job_type, title, status) SELECT 'j' || i, 'acme', 'import', 'Import of part ' || i, 'running' FROM n",
        "UPDATE jobs SET status = 'completed' WHERE id NOT IN ('j1', 'j2', 'j3', 'j4', 'j5', 'j6')",
        "INSERT INTO campaigns (id, tenant_id, name, is_active, status) VALUES ('c1', 'acme', 'Spring clean', 1, 'active')",
    ] {
        sqlx::query(text).execute(&sql).await.expect(text);
    }
    let gateway = fleet.gateway();
    fleet.worker();
    let (token, address) = (fleet.token("ann", "acme"), fleet.process(gateway).address.clone());
    let mut browser = Browser::open("about:blank").await;
    browser
        .before("window.asked = []; const ask = fetch; window.fetch = (path, ...rest) => { window.asked.push(String(path)); return ask(path, ...rest); };")
        .await;
    browser.navigate(&format!("http://{address}/?token={token}#/overview")).await;
    let mut page = Page { browser, address: address.clone() };
    page.says("1,494 completed in the last hour").await;
    page.says("0 failed in the last hour").await;
    assert_eq!(page.eval("document.getElementById('page').innerText.includes('at least')").await, json!(false));

    // Another operator pauses six jobs and a campaign.
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    for body in [
        json!({"type": "pause_jobs", "filter": {"status": "running"}}),
        json!({"type": "pause_campaigns", "campaign_ids": ["c1"]}),
    ] {
        let (status, body) =
            http(&address, "POST", "/api/v1/batch?wait=30", &headers, &body.to_string()).expect("answer");
        assert_eq!(status, 200, "{body}");
    }
    let line = |name: &str, id: &str| {
        format!(
            "[...document.querySelectorAll('#activity li')].some((line) => line.innerText.includes('Paused') \
             && line.querySelector('a').innerText === {name:?} && line.querySelector('.id').checkVisibility() \
             && line.querySelector('.id').innerText === {id:?})"
        )
    };
    for n in 1..=6 {
        let named = line(&format!("Import of part {n}"), &format!("j{n}"));
        page.until("the job is called by its title", &named).await;
    }
    page.until("the campaign is called by its name", &line("Spring clean", "c1")).await;
    let of_one = "window.asked.filter((path) => /api.v1.(jobs|campaigns).[a-z]+[0-9]/.test(path))";
    assert_eq!(page.eval(of_one).await, json!([]), "none is read by itself");
}
