//! PostgreSQL ends connections exactly while a client attaches, tells of a published job, saves or ends: before its commits, or
//! after them and before the worker has heard of that. Commits are held up by a trigger that waits for the test.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::client::Client;
use super::fixture::RemoteFixture;
use super::outages::{attach, begin, expect, failed, is_read, save};
use crate::support::fleet::Fleet;
use crate::support::postgres;
use crate::support::proxy::{Line, Proxy};
use crate::support::socket::PATIENCE;

/// The lock that every commit which changes a job waits for.
const LOCK: &str = "4242";

pub struct Database {
    connection: PgConnection,
    to_it: Proxy,
}

impl Database {
    /// A fleet on PostgreSQL, whose workers reach it through a proxy.
    pub async fn start() -> (RemoteFixture, Self) {
        let url = postgres::database().await;
        let (base, name) = url.rsplit_once('/').expect("a database");
        let port = base.rsplit_once(':').expect("a port").1.parse().expect("a number");
        let to_it = Proxy::to(port).await;
        let mut fleet = Fleet::new();
        fleet.set("DATABASE__URL", &url);
        let migrated = fleet.command(&["migrate"]).output().expect("run wheelhouse migrate");
        assert!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        let mut fixture = RemoteFixture::of(fleet);
        fixture.fleet.set("DATABASE__URL", &format!("postgres://postgres@127.0.0.1:{}/{name}", to_it.port()));
        let connection = PgConnection::connect(&url).await.expect("connect to PostgreSQL");
        let mut database = Self { connection, to_it };
        let waits = format!(
            "CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared({LOCK}); RETURN NULL; END $$"
        );
        database.run(&waits).await;
        database
            .run(
                "CREATE CONSTRAINT TRIGGER waits AFTER INSERT OR UPDATE ON jobs DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION waits()",
            )
            .await;
        (fixture, database)
    }

    async fn run(&mut self, text: &str) {
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut self.connection).await.expect(text);
    }

    /// From now on no change of a job is committed.
    async fn hold(&mut self) {
        self.run(&format!("SELECT pg_advisory_lock({LOCK})")).await;
    }

    async fn release(&mut self) {
        self.run(&format!("SELECT pg_advisory_unlock({LOCK})")).await;
    }

    /// How many commits wait.
    async fn waiting(&mut self) -> i64 {
        let text = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        sqlx::query_scalar(text).fetch_one(&mut self.connection).await.expect("a count")
    }

    async fn until_waiting(&mut self, count: i64) {
        let begun = Instant::now();
        while self.waiting().await < count {
            assert!(begun.elapsed() < PATIENCE, "{count} commits never waited");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_row(&mut self, job: &str, retries: i64) {
        let begun = Instant::now();
        while self.row(job).await != Some(("pending".to_owned(), retries)) {
            assert!(begun.elapsed() < PATIENCE, "{job} is never pending after {retries} retries");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Status and retries of a job.
    async fn row(&mut self, job: &str) -> Option<(String, i64)> {
        let text = "SELECT status, CAST(retry_count AS BIGINT) FROM jobs WHERE id = $1";
        sqlx::query_as(text).bind(job).fetch_optional(&mut self.connection).await.expect("read")
    }
}

/// What is said of five jobs, and the kinds of the answers.
fn said(after: u64) -> Vec<(Value, &'static str)> {
    let end = json!({"type": "end", "ref": 3, "how": "handed_back", "error": "again, please"});
    vec![
        (save(1, after + 1, "here"), "saved"),
        (failed(2), "ended"),
        (end, "ended"),
        (attach(after + 4, &format!("begins-{after}")), "attached"),
        (expect(after + 5, &format!("waits-{after}")), "expected"),
    ]
}

async fn say(client: &mut Client, said: &[(Value, &'static str)]) {
    for (message, _) in said {
        client.send(message.clone()).await;
    }
    is_read(client, "s1").await;
}

async fn answers(client: &mut Client, said: &[(Value, &'static str)]) -> Vec<Value> {
    let mut answers = Vec::new();
    for (message, kind) in said {
        let reference = message["ref"].as_u64().expect("a ref");
        let answer = client.about(reference, &["saved", "ended", "attached", "expected", "lost", "refused"]).await;
        assert_eq!(answer["type"], *kind, "{message} is answered by {answer}");
        answers.push(answer);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_before_or_after_a_commit_lose_nothing_and_do_nothing_twice() {
    let (mut fixture, mut database) = Database::start().await;
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    for (reference, job) in [(1, "saves"), (2, "fails"), (3, "handed")] {
        begin(&mut client, reference, job).await;
    }
    // Before the commit: PostgreSQL takes everything back, and the worker writes it again.
    database.hold().await;
    say(&mut client, &said(10)).await;
    database.until_waiting(5).await;
    database
        .run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        .await;
    database.release().await;
    let answered = answers(&mut client, &said(10)).await;
    assert_eq!((&answered[1]["status"], &answered[2]["status"]), (&json!("pending"), &json!("pending")));
    assert_eq!(database.row("fails").await, Some(("pending".to_owned(), 1)));
    assert_eq!(database.row("handed").await, Some(("pending".to_owned(), 1)));
    assert_eq!(database.row("waits-10").await, Some(("pending".to_owned(), 0)));

    // After the commit: the worker cannot know whether that has happened.
    for (reference, job) in [(2, "fails"), (3, "handed")] {
        assert_eq!(client.attach(reference + 100, "acme", job).await["run"], 2);
    }
    let mut second = said(20);
    second[1].0["ref"] = json!(102);
    second[2].0["ref"] = json!(103);
    database.hold().await;
    say(&mut client, &second).await;
    database.until_waiting(5).await;
    database.to_it.set(Line::Swallow);
    database.release().await;
    for (job, retries) in [("waits-20", 0), ("fails", 2), ("handed", 2)] {
        database.until_row(job, retries).await;
    }
    while database.row("begins-20").await.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    database.to_it.set(Line::Pass);
    let answered = answers(&mut client, &second).await;
    assert_eq!(answered[3]["run"], 1, "it was given once");
    assert_eq!(database.row("fails").await, Some(("pending".to_owned(), 2)), "one more try has failed, not two");
    assert_eq!(database.row("handed").await, Some(("pending".to_owned(), 2)));
    let pause = fixture.command("pause", "begins-20");
    let order = client.order(24, "pause").await;
    client.reached(&order, "still").await;
    assert_eq!(fixture.result_of("begins-20", &pause).await["control"], "live");
    let cancel = fixture.command("cancel", "begins-20");
    let order = client.order(24, "cancel").await;
    client.reached(&order, "ended").await;
    assert_eq!(fixture.result_of("begins-20", &cancel).await["status"], "cancelled");
}

/// A database of its own for a test, and a role of its own: the server is everybody's.
async fn with_role() -> (RemoteFixture, Database, String) {
    let (mut fixture, mut database) = Database::start().await;
    let name: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(&mut database.connection)
        .await
        .expect("a name");
    let role = format!("visitor_{name}");
    database.run(&format!("CREATE ROLE {role} LOGIN SUPERUSER")).await;
    let url = format!("postgres://{role}@127.0.0.1:{}/{name}", database.to_it.port());
    fixture.fleet.set("DATABASE__URL", &url);
    (fixture, database, role)
}

/// While the database is `closed`, three runs say what is to be stored: nothing is refused, and nothing is said to be stored until it is `opened`.
async fn all_of_it_waits(fixture: &mut RemoteFixture, database: &mut Database, closed: &[String], opened: &str) {
    let worker = fixture.worker();
    let mut client = fixture.client(&worker, "s1").await;
    for (reference, job) in [(1, "saves"), (2, "fails"), (3, "handed")] {
        begin(&mut client, reference, job).await;
    }
    for statement in closed {
        database.run(statement).await;
    }
    let said = said(10);
    for (message, _) in &said {
        client.send(message.clone()).await;
    }
    let begun = Instant::now();
    for event in ["worker.progress_not_saved", "worker.end_not_recorded", "worker.attach_", "worker.expect_delayed"] {
        while !fixture.fleet.log().contains(event) {
            assert!(begun.elapsed() < PATIENCE, "{event} is never logged; log:\n{}", fixture.fleet.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    database.run(opened).await;
    let answered = answers(&mut client, &said).await;
    assert_eq!((&answered[1]["status"], &answered[2]["status"]), (&json!("pending"), &json!("pending")));
    let point: Option<String> = sqlx::query_scalar("SELECT resume_point FROM jobs WHERE id = 'saves'")
        .fetch_one(&mut database.connection)
        .await
        .expect("read");
    assert_eq!(point.as_deref(), Some("\"here\""));
}

/// Its password is being changed, say, or the database is being restored: that is nobody's job's fault.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_lets_nobody_in_nothing_is_refused_and_nothing_is_said_to_be_stored() {
    let (mut fixture, mut database, role) = with_role().await;
    let its = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
    let closed = [format!("ALTER ROLE {role} NOLOGIN"), its];
    all_of_it_waits(&mut fixture, &mut database, &closed, &format!("ALTER ROLE {role} LOGIN")).await;
}

/// As while a table is restored, or rights are given anew.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_table_is_away_nothing_is_refused_and_nothing_is_said_to_be_stored() {
    let (mut fixture, mut database) = Database::start().await;
    let closed = ["ALTER TABLE jobs RENAME TO jobs_elsewhere".to_owned()];
    all_of_it_waits(&mut fixture, &mut database, &closed, "ALTER TABLE jobs_elsewhere RENAME TO jobs").await;
}
