//! A start that cannot succeed: one line, in the words of the server that refuses, with its address and without secrets.

use rustix::process::Signal;

use crate::support::api::until;
use crate::support::fleet::{Fleet, http_get};
use crate::support::redis::RedisServer;

async fn refused(fleet: &Fleet, args: &[&str]) -> String {
    let mut command = fleet.command(args);
    let ran = tokio::task::spawn_blocking(move || command.output()).await.expect("run").expect("run wheelhouse");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_ne!(ran.status.code(), Some(0), "{args:?}: {said}");
    assert!(!said.contains("hunter2"), "{args:?}: {said}");
    assert!(!said.contains("not reachable"), "{args:?}: {said}");
    said
}

/// Every program that goes to Redis by itself.
const PROGRAMS: [&[&str]; 5] = [
    &["gateway"],
    &["worker"],
    &["inspect", "workers"],
    &["grant", "--user", "ann", "jobs.pause"],
    &["run", "--tenant", "acme", "--", "true"],
];

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_does_not_permit_is_said_in_its_words_and_not_called_unreachable() {
    let redis = RedisServer::start();
    redis.inline("ACL SETUSER wheel on >hunter2 ~wh:* &* +@all -@scripting");
    let address = format!("127.0.0.1:{}", redis.port());
    let mut fleet = Fleet::new();
    fleet.move_to(&format!("redis://wheel:hunter2x@{address}"));
    for program in PROGRAMS {
        let said = refused(&fleet, program).await;
        assert!(said.contains("WRONGPASS") && said.contains(&address), "{program:?}: {said}");
    }
    fleet.move_to(&format!("redis://wheel:hunter2@{address}"));
    for program in [&["gateway"][..], &["worker"], &["run", "--tenant", "acme", "--", "true"]] {
        let said = refused(&fleet, program).await;
        assert!(said.contains("NOPERM") && said.contains("evalsha"), "{program:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_does_not_serve_is_said_in_one_line_for_all_its_partitions_and_so_is_its_return() {
    let mut fleet = Fleet::new();
    fleet.redis.inline("CONFIG SET min-replicas-to-write 1");
    fleet.set("SERVER__LISTEN", "127.0.0.1:0");
    // It begins, and is not ready.
    fleet.start(&["gateway"]);
    until("started", async || fleet.log().contains("gateway.started")).await;
    let of = |log: &str, event: &str| -> Vec<serde_json::Value> {
        let lines = log.lines().filter(|line| line.contains(event));
        lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let expected = "{00} {01} {02} {03} {04} {05} {06} {07} {08} {09} {10} {11} {12} {13} {14} {15}";
    let said = of(&fleet.log(), "redis.not_serving");
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((&said[0]["count"], &said[0]["partitions"]), (&16.into(), &expected.into()), "{said:?}");
    assert!(said[0]["error"].as_str().is_some_and(|error| error.contains("NOREPLICAS")), "{said:?}");
    fleet.redis.inline("CONFIG SET min-replicas-to-write 0");
    until("served again", async || !of(&fleet.log(), "redis.serving_again").is_empty()).await;
    let said = of(&fleet.log(), "redis.serving_again");
    assert_eq!((said.len(), &said[0]["count"], &said[0]["partitions"]), (1, &16.into(), &expected.into()), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_number_is_refused_by_every_program_with_the_reason() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::new();
    for number in ["/1", "?db=1"] {
        fleet.move_to(&format!("redis://127.0.0.1:{}{number}", redis.port()));
        for program in PROGRAMS {
            let said = refused(&fleet, program).await;
            assert!(said.contains("redis.url: names database 1") && said.contains("pub/sub"), "{program:?}: {said}");
            assert!(said.contains("WHEELHOUSE__REDIS__URL"), "{program:?}: {said}");
        }
    }
    assert_eq!(redis.inline("DBSIZE"), ":0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_is_away_is_named_with_the_cause_and_a_sqlite_file_with_its_name() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::new();
    fleet.move_to(&redis.url());
    let port = crate::support::free_port();
    fleet.set("DATABASE__URL", &format!("postgres://ann:hunter2@127.0.0.1:{port}/wheel"));
    for program in [&["gateway"][..], &["worker"], &["migrate"]] {
        let said = refused(&fleet, program).await;
        assert!(said.contains(&format!("PostgreSQL at 127.0.0.1:{port}/wheel")), "{program:?}: {said}");
        assert!(said.contains("refused") && !said.contains("pool"), "{program:?}: {said}");
    }
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("nowhere").join("wheel.db");
    fleet.set("DATABASE__URL", &format!("sqlite://{}", file.display()));
    for program in [&["gateway"][..], &["worker"], &["migrate"]] {
        let said = refused(&fleet, program).await;
        assert!(said.contains(&file.display().to_string()), "{program:?}: {said}");
    }
    // Something that is no database.
    std::fs::create_dir(folder.path().join("nowhere")).expect("folder");
    std::fs::write(&file, "a text that is long enough to be read as the header of a database".repeat(40))
        .expect("write");
    for program in [&["gateway"][..], &["worker"], &["migrate"]] {
        let said = refused(&fleet, program).await;
        assert!(said.contains(&file.display().to_string()), "{program:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_stops_a_gateway_does_not_wait_for_the_notice_to_load_balancers() {
    let mut fleet = Fleet::new();
    fleet.set("SERVER__DRAIN_NOTICE_SECONDS", "3600");
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    for signal in [Signal::INT, Signal::HUP] {
        let gateway = fleet.gateway_in_front();
        let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
        fleet.signal(gateway, signal);
        // Leaving is the same otherwise: every socket is told where it stands.
        assert_eq!(socket.until_that(|v| v.get("closed").is_some()).await["closed"], 1012);
        assert_eq!(fleet.wait(gateway), Some(0), "{signal:?}");
    }
    // A process manager's signal gives the notice; whoever then loses patience ends it at once.
    let gateway = fleet.gateway_in_front();
    let address = fleet.process(gateway).address.clone();
    fleet.signal(gateway, Signal::TERM);
    until("draining", async || http_get(&address, "/readyz").is_some_and(|(status, _)| status == 503)).await;
    fleet.signal(gateway, Signal::INT);
    assert_eq!(fleet.wait(gateway), Some(130));
}
