//! Lists as clients ask for them, on both databases.

use serde_json::{Value, json};

use crate::support::api::{RestFixture, until};
use crate::support::postgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_searched_and_sorted_on_sqlite() {
    searched_and_sorted(RestFixture::start(&[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_searched_and_sorted_on_postgresql() {
    let url = postgres::database().await;
    searched_and_sorted(RestFixture::start(&[("database.url", &url)]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_counts_are_added_up_where_no_worker_lives() {
    let url = postgres::database().await;
    let api = RestFixture::start(&[("database.url", &url)]).await;
    let ann = api.user("ann", "acme", &["*"]).await;
    let rows = "INSERT INTO jobs (id, tenant_id, campaign_id) SELECT 'j' || n, 'acme', 'c' || n FROM generate_series(1, 500) n";
    api.sql(rows).await;
    api.sql("UPDATE jobs SET status = 'cancelled' WHERE id IN ('j1', 'j2')").await;
    let pool = sqlx::PgPool::connect(&url).await.expect("connect");
    let waiting = async || {
        let waiting = sqlx::query_scalar("SELECT COUNT(*) FROM job_count_changes").fetch_one(&pool).await;
        waiting.unwrap_or(0_i64)
    };
    assert!(waiting().await >= 500);
    for _ in 0..2 {
        let counted = &api.get(&ann, "/api/v1/jobs?totals=true&limit=1").await.expect(200)["totals"];
        assert_eq!((&counted["pending"], &counted["cancelled"]), (&json!(498), &json!(2)));
        until("they are added up", async || waiting().await == 0).await;
    }
}

fn ids(page: &Value, kind: &str) -> Vec<String> {
    let rows = page[kind].as_array().unwrap_or_else(|| panic!("{page}"));
    rows.iter().map(|row| row["id"].as_str().expect("id").to_owned()).collect()
}

async fn searched_and_sorted(api: RestFixture) {
    let ann = api.user("ann", "acme", &["*"]).await;
    let bob = api.user("bob", "acme", &["*"]).await;
    let theirs = api.user("eve", "globex", &["*"]).await;
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"c1","name":"Spring letters"})).await.expect(201);
    api.post(&ann, "/api/v1/campaigns", &json!({"id":"c2","name":"Summer"})).await.expect(201);
    for n in 0..6 {
        let who = if n % 2 == 0 { &ann } else { &bob };
        let mut job =
            json!({"job_type": "mail", "id": format!("j{n}"), "title": format!("Letter {n} to 100% of K\u{f6}ln")});
        if n < 2 {
            job["campaign_id"] = "c1".into();
        }
        api.post(who, "/api/v1/jobs", &job).await.expect(201);
    }
    api.post(&theirs, "/api/v1/jobs", &json!({"job_type": "mail", "id": "j9", "title": "Letter 9"})).await.expect(201);
    for id in ["j5", "j3"] {
        // No worker is there: nobody starts them, and the row of a job that waits can be changed by plain SQL.
        api.sql(&format!("UPDATE jobs SET status = 'failed', error_message = 'Disk is full', updated_at = '2027-01-01T00:00:00Z' WHERE id = '{id}'")).await;
    }
    let list = async |query: &str| ids(&api.get(&ann, &format!("/api/v1/jobs?{query}")).await.expect(200), "jobs");
    assert_eq!(list("").await, ["j4", "j2", "j1", "j0", "j5", "j3"], "what has not ended first");
    assert_eq!(list("order=asc").await, ["j0", "j1", "j2", "j4", "j3", "j5"]);
    assert_eq!(list("sort=created").await, ["j5", "j4", "j3", "j2", "j1", "j0"]);
    assert_eq!(list("sort=updated&limit=2").await, ["j5", "j3"]);
    assert_eq!(list("status=failed,cancelled").await, ["j5", "j3"]);
    assert_eq!(list("created_by=bob&status=pending").await, ["j1"]);
    assert_eq!(list("q=disk").await, ["j5", "j3"]);
    assert_eq!(list("q=letter%204").await, ["j4"]);
    assert_eq!(list("q=100%25%20of&campaign_id=c1").await, ["j1", "j0"]);
    assert_eq!(list("q=letter_").await, [""; 0], "a sign that a database takes for any other is itself");
    assert_eq!(list("updated_after=2026-12-31T23:00:00%2B00:00").await, ["j5", "j3"]);
    assert_eq!(list("created_after=2100-01-01T00:00:00Z").await, [""; 0]);
    assert_eq!(list("worker=nobody").await, [""; 0]);
    // A page and its cursor, which is good for its own list alone.
    let first = api.get(&ann, "/api/v1/jobs?sort=created&limit=4").await.expect(200);
    let next = first["next"].as_str().expect("more").to_owned();
    api.post(&ann, "/api/v1/jobs", &json!({"job_type": "mail", "id": "new"})).await.expect(201);
    assert_eq!(list(&format!("sort=created&limit=4&after={next}")).await, ["j1", "j0"]);
    for (query, part) in [
        (format!("sort=updated&after={next}"), "another list"),
        (format!("sort=created&q=x&after={next}"), "another list"),
        ("after=17".to_owned(), "the \"next\" of the last page"),
        ("sort=size".to_owned(), "must be one of unfinished"),
        ("order=up".to_owned(), "desc or asc"),
        ("status=failed,stopped".to_owned(), "must be one of pending"),
        ("created_after=yesterday".to_owned(), "RFC 3339"),
        ("totals=yes".to_owned(), "true or false"),
        ("totals=true&q=x".to_owned(), "without other filters"),
        (format!("q={}", "x".repeat(201)), "200 characters"),
    ] {
        let words = api.get(&ann, &format!("/api/v1/jobs?{query}")).await.error(400, "invalid_message");
        assert!(words.contains(part), "{query}: {words}");
    }
    let other = api.get(&theirs, &format!("/api/v1/jobs?sort=created&after={next}")).await;
    assert!(other.error(400, "invalid_message").contains("another list"), "of another tenant");
    // Totals in the same call.
    // A cursor that a client has written itself reads nothing of others, and breaks nothing.
    for kind in ["jobs", "campaigns"] {
        for sort in ["created", "updated"] {
            let list = format!("/api/v1/{kind}?sort={sort}&limit=1");
            let page = api.get(&ann, &list).await.expect(200);
            let text = hex::decode(page["next"].as_str().expect("more")).expect("hex");
            let text = String::from_utf8(text).expect("text");
            let (before, _) = text.rsplit_once('|').expect("parts");
            for key in ["", "now", "x') OR 1=1 --", "2026-13-45T99:99:99Z", "2026-01-01 00:00:00+99", "\0"] {
                let forged = hex::encode(format!("{before}|{key}"));
                api.get(&ann, &format!("{list}&after={forged}")).await.error(400, "invalid_message");
            }
        }
    }
    let counted = api.get(&ann, "/api/v1/jobs?totals=true&limit=1").await.expect(200);
    assert_eq!(
        counted["totals"],
        json!({"pending": 5, "running": 0, "paused": 0, "completed": 0, "failed": 2, "cancelled": 0})
    );
    let counted = api.get(&ann, "/api/v1/jobs?totals=true&limit=1&campaign_id=c1").await.expect(200);
    assert_eq!(counted["totals"]["pending"], 2);
    assert_eq!(api.get(&ann, "/api/v1/jobs?limit=1").await.expect(200)["totals"], Value::Null);
    // Campaigns.
    let campaigns =
        async |query: &str| ids(&api.get(&ann, &format!("/api/v1/campaigns?{query}")).await.expect(200), "campaigns");
    assert_eq!(campaigns("").await, ["c2", "c1"]);
    assert_eq!(campaigns("sort=created&order=asc").await, ["c1", "c2"]);
    assert_eq!(campaigns("q=LETTERS").await, ["c1"]);
    assert_eq!(campaigns("status=paused,cancelled").await, [""; 0]);
    api.get(&ann, "/api/v1/campaigns?sort=duration").await.error(400, "invalid_message");
    // What every row says.
    let row = &api.get(&ann, "/api/v1/jobs?limit=1").await.expect(200)["jobs"][0];
    assert_eq!((&row["running_seconds"], &row["paused_seconds"]), (&json!(0.0), &json!(0.0)));
}
