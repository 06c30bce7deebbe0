//! A database that is away, silent, or held by somebody else: said in time, and no lasting harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};

use super::*;
use wheelhouse::domain::Control;

/// Longer than the store takes to give up on a connection, shorter than it takes to give up on a statement.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(9);

async fn soon<T>(asked: impl Future<Output = T>) -> T {
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.expect("an answer")
}

/// A way to PostgreSQL that can fall silent: connections stay open, and nothing comes through any more.
struct Way {
    port: u16,
    silent: Arc<AtomicBool>,
    /// Connections that are still passed on.
    open: Arc<AtomicUsize>,
}

impl Way {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("listen");
        let port = listener.local_addr().expect("address").port();
        let silent = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let (quiet, passed_on) = (Arc::clone(&silent), Arc::clone(&open));
        tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let (quiet, passed_on) = (Arc::clone(&quiet), Arc::clone(&passed_on));
                passed_on.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    // One that was silent once stays so, as a connection through a broken network does.
                    if !quiet.load(Ordering::SeqCst) {
                        let mut outside = TcpStream::connect(("127.0.0.1", server)).await.expect("connect");
                        let stopped = async {
                            while !quiet.load(Ordering::SeqCst) {
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                        };
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {
                                passed_on.fetch_sub(1, Ordering::SeqCst);
                                return;
                            }
                            () = stopped => {}
                        }
                    }
                    passed_on.fetch_sub(1, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { port, silent, open }
    }

    /// Returns when no connection passes anything on any more.
    async fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
        while self.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_said_to_be_so_in_time() {
    let url = format!("postgres://ann:very-secret@127.0.0.1:{}/none", support::free_port());
    let settings = config::Database { url: url.into(), connections: 2 };
    let Err(error) = soon(Store::open(&settings)).await else { panic!("there is no such database") };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(!format!("{error} {error:?}").contains("very-secret"));
    let settings = config::Database { url: "postgres://ann:very-secret@[::1/none".into(), connections: 2 };
    let Err(error) = soon(Store::open(&settings)).await else { panic!("that is no address") };
    assert!(!format!("{error} {error:?}").contains("very-secret"));
    let settings = config::Database { url: "sqlite::memory:".into(), connections: 2 };
    assert!(matches!(Store::open(&settings).await, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn a_silent_database_is_given_up_on_in_time_and_its_connections_are_not_lost() {
    let direct = Db::postgres().await;
    let (before, name) = direct.url.rsplit_once('/').expect("address");
    let server = before.rsplit(':').next().and_then(|port| port.parse().ok()).expect("port");
    let way = Way::to(server).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/{name}", way.port);
    let store = Store::open(&config::Database { url: url.into(), connections: 2 }).await.expect("open");
    store.create_job(&new_job("j", None)).await.expect("create");
    let pause = change(job("j"), Action::Pause, 1);
    way.fall_silent().await;
    // More often than there are connections: none of them may be lost to waiting for an answer.
    for _ in 0..3 {
        assert!(matches!(soon(store.apply(&pause)).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(soon(store.job(&job("j"))).await, Err(StoreError::Unavailable(_))));
        // Given up on by the caller.
        assert!(
            tokio::time::timeout(Duration::from_millis(50), store.claim_job(&worker("w"), None, &["work".into()]))
                .await
                .is_err()
        );
    }
    assert!(matches!(store.ping(Duration::from_millis(200)).await, Err(StoreError::Unavailable(_))));
    way.silent.store(false, Ordering::SeqCst);
    soon(async { while store.job(&job("j")).await.is_err() {} }).await;
    let (a, b) = tokio::join!(store.apply(&pause), store.permission_version());
    assert_eq!(
        a.expect("apply"),
        ApplyOutcome::Succeeded { status: "paused".into(), changed: true, control: Some(Control::Row) }
    );
    b.expect("a second connection");
}

#[tokio::test]
async fn statements_that_fall_silent_half_way_do_not_use_up_the_connections() {
    let direct = Db::postgres().await;
    let (before, name) = direct.url.rsplit_once('/').expect("address");
    let server = before.rsplit(':').next().and_then(|port| port.parse().ok()).expect("port");
    let way = Way::to(server).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/{name}", way.port);
    let store = Store::open(&config::Database { url: url.into(), connections: 2 }).await.expect("open");
    store.create_job(&new_job("j", None)).await.expect("create");
    let hosted = store.claim_job(&worker("w"), None, &["work".into()]).await.expect("claim").expect("a job");
    // The row is held, so that both statements are under way when the silence begins.
    use sqlx::Executor;
    let mut holder = direct.holder("SELECT * FROM jobs FOR UPDATE").await;
    let pause = change(job("j"), Action::Pause, 1);
    let account = SavedRun::default();
    let under_way = async { tokio::join!(store.apply(&pause), store.save(&hosted.run, &account)) };
    let silence = async {
        let waiting = "SELECT 1 FROM pg_locks WHERE NOT granted";
        while sqlx::query(waiting).fetch_all(&mut holder).await.expect("look").len() < 2 {}
        way.fall_silent().await;
    };
    // Both are dropped with their statements unanswered.
    tokio::select! {
        _ = under_way => panic!("the row is held"),
        () = silence => {}
    }
    holder.execute("ROLLBACK").await.expect("let go");
    tokio::time::sleep(Duration::from_millis(50)).await;
    way.silent.store(false, Ordering::SeqCst);
    soon(async { while store.job(&job("j")).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_row_that_somebody_holds_is_said_to_be_busy_and_later_changed() {
    let db = Db::postgres().await;
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await.expect("insert");
    use sqlx::Executor;
    let mut holder = db.holder("SELECT * FROM jobs FOR UPDATE").await;
    let pause = change(job("j"), Action::Pause, 1);
    let answer = soon(db.store.apply(&pause)).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(status(&db, "j").await, JobStatus::Running);
    holder.execute("ROLLBACK").await.expect("let go");
    assert_eq!(
        db.store.apply(&pause).await.expect("apply"),
        ApplyOutcome::Succeeded { status: "paused".into(), changed: true, control: Some(Control::Row) }
    );
}

#[tokio::test]
async fn a_file_that_another_program_writes_to_is_waited_for_then_said_to_be_busy() {
    let db = Db::sqlite().await;
    db.sql("INSERT INTO jobs (id, tenant_id, status) VALUES ('j', 'acme', 'running')").await.expect("insert");
    use sqlx::{Connection, Executor};
    let mut holder = sqlx::SqliteConnection::connect(&db.url).await.expect("connect");
    holder.execute("BEGIN IMMEDIATE").await.expect("hold");
    let pauses: Vec<CommandChange> = (0..3).map(|n| change(job("j"), Action::Pause, n)).collect();
    let busy = futures_util::future::join_all(pauses.iter().map(|c| db.store.apply(c)));
    let read = async {
        for _ in 0..20 {
            assert_eq!(status(&db, "j").await, JobStatus::Running, "readers do not wait for a writer");
        }
    };
    let (busy, ()) = tokio::join!(busy, read);
    assert!(busy.iter().all(|answer| matches!(answer, Err(StoreError::Unavailable(_)))), "{busy:?}");
    let waits = db.store.apply(&pauses[0]);
    let (applied, ()) = tokio::join!(waits, async {
        tokio::task::yield_now().await;
        holder.execute("ROLLBACK").await.expect("let go");
    });
    assert_eq!(
        applied.expect("apply"),
        ApplyOutcome::Succeeded { status: "paused".into(), changed: true, control: Some(Control::Row) }
    );
}

#[tokio::test]
async fn a_database_without_tables_says_so_at_once() {
    let folder = tempfile::tempdir().expect("folder");
    let url = format!("sqlite://{}", folder.path().join("new.db").display());
    let store = Store::open(&config::Database { url: url.into(), connections: 2 }).await.expect("open");
    assert!(!store.is_migrated().await.expect("read"));
    for answer in
        [store.job(&job("j")).await.map(|_| ()), store.apply(&change(job("j"), Action::Pause, 1)).await.map(|_| ())]
    {
        assert!(matches!(answer, Err(StoreError::Unprepared(_))), "{answer:?}");
    }
    assert_eq!(store.migrate().await.expect("migrate"), migrations());
    assert_eq!(store.migrate().await.expect("again"), 0);
}

#[tokio::test]
async fn nothing_is_written_to_a_sqlite_file_that_other_programs_do_not_see() {
    for (gone, what) in [("", "database"), ("-wal", "log")] {
        let db = Db::sqlite().await;
        db.store.create_job(&new_job("j", None)).await.expect("create");
        let path = db.url.trim_start_matches("sqlite://").to_owned();
        let place = format!("{path}{gone}");
        let holds_the_job = || {
            let text = std::fs::read(&path).expect("the database");
            text.windows(5).any(|words| words == b"acmej")
        };
        let soon_known = async || {
            // A write may rely on a look of some ms ago; not on one that found this.
            let ping = db.store.ping(Duration::from_secs(1)).await;
            let pause = db.store.apply(&change(job("j"), Action::Pause, 1)).await;
            for asked in [pause.map(|_| ()), ping] {
                let Err(StoreError::Unavailable(why)) = asked else { panic!("the {what} is another: {asked:?}") };
                assert!(why.contains(&place) && why.contains("stop all programs"), "{why}");
            }
        };
        assert!(!holds_the_job(), "it is in the log alone");
        std::fs::rename(&place, format!("{path}.aside")).expect("removed");
        soon_known().await;
        std::fs::write(&place, "").expect("put another there");
        soon_known().await;
        if gone.is_empty() {
            std::fs::rename(format!("{path}.aside"), &place).expect("put back");
            db.store.ping(Duration::from_secs(1)).await.expect("the same file as before");
            db.store.apply(&change(job("j"), Action::Pause, 1)).await.expect("apply");
        } else {
            assert!(holds_the_job(), "what was in the log that is gone is in the database");
        }
    }
}

#[tokio::test]
async fn whether_it_can_be_written_is_found_out_without_writing_and_names_the_database() {
    for db in [Db::sqlite().await, Db::postgres().await] {
        let second = Duration::from_secs(5);
        assert!(matches!(db.store.prove_inserts(second).await, Some(Ok(()))));
        assert!(matches!(db.store.prove_updates(second).await, Some(Ok(()))));
        db.sql("ALTER TABLE jobs RENAME TO jobs_elsewhere").await.expect("SQL");
        for proof in [db.store.prove_inserts(second).await, db.store.prove_updates(second).await] {
            let Some(Err(error)) = proof else { panic!("{proof:?}") };
            let place = db.url.rsplit(['/', '@']).next().expect("a name");
            assert!(error.to_string().contains(place), "{error}");
        }
        db.sql("ALTER TABLE jobs_elsewhere RENAME TO jobs").await.expect("SQL");
        assert!(matches!(db.store.prove_updates(second).await, Some(Ok(()))));
    }
}

#[tokio::test]
async fn a_postgresql_that_only_reads_is_read_and_cannot_be_written() {
    let db = Db::postgres().await;
    let name = db.url.rsplit('/').next().expect("a name").to_owned();
    db.sql(&format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = on")).await.expect("SQL");
    let settings = config::Database { url: db.url.clone().into(), connections: 2 };
    let store = Store::open(&settings).await.expect("open");
    store.ping(Duration::from_secs(5)).await.expect("it can be read");
    let Some(Err(error)) = store.prove_inserts(Duration::from_secs(5)).await else { panic!("it cannot be written") };
    assert!(error.to_string().contains("read-only") && error.to_string().contains(&name), "{error}");
}

#[tokio::test]
async fn while_others_write_nobody_says_that_it_cannot_be_written() {
    let db = Db::sqlite().await;
    let options = db.url.parse::<sqlx::sqlite::SqliteConnectOptions>().expect("address");
    let mut other = sqlx::ConnectOptions::connect(&options).await.expect("connect");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("begin");
    let proof = db.store.prove_inserts(Duration::from_millis(200)).await;
    assert!(proof.is_none(), "{proof:?}");
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("rollback");
    assert!(matches!(db.store.prove_inserts(Duration::from_secs(20)).await, Some(Ok(()))));
}

#[tokio::test]
async fn a_postgresql_that_goes_away_later_is_named_with_the_cause_too() {
    let db = Db::postgres().await;
    let server = db.url.rsplit([':', '/']).nth(1).and_then(|port| port.parse().ok()).expect("port");
    let name = db.url.rsplit('/').next().expect("a name");
    let way = Way::to(server).await;
    let settings =
        config::Database { url: format!("postgres://postgres@127.0.0.1:{}/{name}", way.port).into(), connections: 2 };
    let store = Store::open(&settings).await.expect("open");
    way.fall_silent().await;
    let error = soon(store.ping(Duration::from_secs(2))).await.expect_err("silent");
    assert!(error.to_string().contains(&format!("PostgreSQL at 127.0.0.1:{}/{name}", way.port)), "{error}");
}
