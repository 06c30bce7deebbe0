//! `docs/redis.md` is read at three in the morning: every line in it that can be pasted is run here, against a Redis
//! with data in it, and every key that exists is in its table.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::redis::RedisServer;
use crate::{LEASE, LIMITS, ROW, accept, batch, claim, connect, job, refused, submission, succeeded, worker};
use wheelhouse::broker::scripts::batch::BatchSubmitted;
use wheelhouse::broker::scripts::connections::ConnectionLease;
use wheelhouse::broker::scripts::heartbeats::SeatWish;
use wheelhouse::broker::scripts::leaders::HeartbeatLook;
use wheelhouse::broker::scripts::permissions::PermissionSet;
use wheelhouse::broker::scripts::runs::{RunMessage, RunUpdate};
use wheelhouse::broker::scripts::submit::{Grant, Submission, SubmitOutcome};
use wheelhouse::broker::scripts::updates::Update;
use wheelhouse::broker::{Broker, Subscriber};
use wheelhouse::domain::{Action, Progress, When};

const PAGE: &str = include_str!("../../docs/redis.md");

/// Lines of the blocks that open with this fence.
fn lines(fence: &str) -> Vec<&'static str> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in PAGE.lines() {
        if line.starts_with("```") {
            inside = !inside && line == fence;
        } else if inside {
            found.push(line);
        }
    }
    found
}

/// One of everything: answered, waiting, claimed, refused, limited, watched.
async fn fill(broker: &Broker) {
    let mut asked = submission("j1", Action::Pause);
    let (tenant, user) = (asked.resource.tenant.clone(), asked.user.clone());
    let ttl = Duration::from_secs(60);
    broker.heartbeat(&worker("w1"), None, ttl).await.expect("heartbeat");
    let home = broker.keys().partition(&tenant);
    broker.heartbeat_at(home, &worker("w1"), SeatWish::Keep).await.expect("heartbeat");
    broker
        .lead_partition(home, &worker("w1"), ttl, 10, HeartbeatLook::AndMend)
        .await
        .expect("lead")
        .expect("nobody else leads");
    let tenants = [tenant.clone()];
    broker.heartbeat(&worker("w2"), Some(tenants.as_slice()), ttl).await.expect("heartbeat");
    let held = PermissionSet { version: 3, held: vec!["jobs.*".to_owned()] };
    broker.fill_permissions(&tenant, &user, &held, ttl).await.expect("fill");
    broker.invalidate_permissions(&user, 3).await.expect("invalidate");
    asked.grant = Grant::Database;
    asked.request = Some("r1".parse().expect("id"));
    accept(broker, &asked).await;
    let first = claim(broker, "j1", "w1").await;
    broker.complete(&first, &worker("w1"), &succeeded("paused"), ROW, None).await.expect("complete");
    accept(broker, &submission("j1", Action::Resume)).await;
    broker.renew_run(&job("j1"), &worker("w1"), 1).await.expect("run");
    claim(broker, "j1", "w1").await;
    accept(broker, &submission("j1", Action::Cancel)).await;
    let mut denied = submission("j1", Action::Cancel);
    denied.grant = Grant::Token(false);
    assert_eq!(broker.submit(&denied, LIMITS).await.expect("submit"), SubmitOutcome::Denied);
    let later = Submission { when: When::After(600), ..submission("j1", Action::Resume) };
    assert!(matches!(broker.submit(&later, LIMITS).await, Ok(SubmitOutcome::Scheduled { .. })));
    let taken_back = Submission { when: When::After(600), ..submission("j1", Action::Pause) };
    assert!(matches!(broker.submit(&taken_back, LIMITS).await, Ok(SubmitOutcome::Scheduled { .. })));
    let kept = broker.scheduled(&tenant, taken_back.command).await.expect("read").expect("it is kept");
    broker.withdraw(&kept, &user, &taken_back.origin, None).await.expect("withdraw");
    accept(broker, &submission("j2", Action::Pause)).await;
    let failed = claim(broker, "j2", "w1").await;
    broker.complete(&failed, &worker("w1"), &refused("No"), ROW, None).await.expect("complete");
    for request in [Some("b1"), None] {
        let asked = batch(&["j3"], Action::Pause, request);
        assert!(matches!(broker.submit_batch(&asked, LIMITS).await, Ok(BatchSubmitted::Done { .. })));
    }
    let update = Update { message: "{\"type\":\"job_status\"".to_owned(), desired: Some(Some("cancelled".to_owned())) };
    broker.publish_update(&job("j1"), &update).await.expect("update");
    let told =
        RunMessage { text: "{\"type\":\"job_progress\"".to_owned(), progress: Some(Progress::default()), fence: None };
    let run = RunUpdate { job: job("j1"), run: 1, keep: true, message: Some(told) };
    broker.update_runs(&worker("w1"), &[run]).await.expect("progress");
    let lease = ConnectionLease { tenant, user, id: "g1-1".to_owned() };
    broker.open_connection(&lease, 10, 10, ttl.max(LEASE)).await.expect("open");
}

/// A shell with the page's names set.
fn shell(line: &str, redis: &RedisServer, broker: &Broker) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).stdin(Stdio::null());
    shell.env("PORT", redis.port().to_string()).env("TENANT", "acme").env("JOB", "j1").env("REQUEST", "r1");
    shell.env("USER_ID", submission("j1", Action::Pause).user.encoded());
    shell.env("TAG", broker.keys().partition(&job("j1").tenant).to_string());
    shell
}

#[tokio::test]
async fn every_line_of_the_page_about_redis_runs_and_says_something() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    fill(&broker).await;
    let (tracker, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let started = Subscriber::start(&broker, &tracker, stop.clone()).await;
    let (subscriber, _events) = started.expect("start");
    subscriber.psubscribe(vec!["*:job:control".to_owned()]).await.expect("subscribe");
    let once = lines("```sh");
    assert!(once.len() >= 20, "the page has lost its lines: {once:?}");
    for line in once {
        let out = shell(line, &redis, &broker).output().expect("sh");
        let (text, complaint) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        let said = text.trim();
        let good = out.status.success() && complaint.is_empty() && !said.is_empty() && said != "0";
        assert!(good && !said.contains("ERR"), "{line}\n{said}\n{complaint}");
    }
    for line in lines("```sh follow") {
        let mut follow = shell(&format!("exec {line}"), &redis, &broker).stdout(Stdio::piped()).spawn().expect("sh");
        let mut heard = [0_u8; 10];
        follow.stdout.take().expect("piped").read_exact(&mut heard).expect("it says something");
        assert_eq!(&heard, b"psubscribe", "{line}");
        follow.kill().expect("kill");
        follow.wait().expect("wait");
    }
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

#[tokio::test]
async fn every_key_and_every_field_that_exists_is_on_the_page() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    fill(&broker).await;
    let mut connection = redis::Client::open(redis.url()).expect("address").get_connection().expect("connect");
    let tag = broker.keys().partition(&job("j1").tenant).to_string();
    let user = submission("j1", Action::Pause).user.encoded();
    let all: Vec<String> = redis::cmd("KEYS").arg(format!("wh:{tag}:*")).query(&mut connection).expect("keys");
    assert!(all.len() >= 15, "{all:?}");
    for key in all {
        let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).expect("type");
        let mut name = key.replace(&tag, "{nn}");
        for id in ["j1", "j2", "j3"] {
            name = name.replace(&format!(":acme:job:{id}:"), ":R:");
        }
        name = name.replace(&format!(":acme:user:{user}:"), ":U:").replace(":acme:", ":{tenant}:");
        if let Some((front, _)) = name.split_once(":request:") {
            name = format!("{front}:request:{{user}}:{{request_id}}");
        }
        if let Some((front, _)) = name.split_once(":@request_ids:") {
            name = format!("{front}:@request_ids:{{day}}:{{share}}");
        }
        if let Some((front, _)) = name.split_once(":@requests:") {
            name = format!("{front}:@requests:{{day}}:{{share}}");
        }
        if let Some((front, _)) = name.split_once(":batch:") {
            name = format!("{front}:batch:{{request_id}}");
        }
        if let Some((front, _)) = name.split_once(":denied:") {
            name = format!("{front}:denied:{{command_id}}");
        }
        if let Some((front, _)) = name.split_once(":unnamed_batch:") {
            name = format!("{front}:unnamed_batch:{{batch_id}}");
        }
        if let Some((front, _)) = name.split_once(":withdrawn:") {
            name = format!("{front}:withdrawn:{{command_id}}");
        }
        name = name.replace(&user, "{user}");
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/redis.md says nothing of {name}"));
        let words = match kind.as_str() {
            "zset" => "sorted set",
            "string" if row.contains("| number |") => "number",
            other => other,
        };
        assert!(row.contains(&format!("| {words} |")), "{name} is a {words}: {row}");
        if name.ends_with(":state") {
            let fields: Vec<String> = redis::cmd("HKEYS").arg(&key).query(&mut connection).expect("fields");
            for field in fields {
                assert!(PAGE.contains(&format!("`{field}`")), "docs/redis.md says nothing of the field {field}");
            }
        }
    }
}
