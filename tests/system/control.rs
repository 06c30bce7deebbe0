//! Whether a command has reached the work or only the row: snapshot, ack, result, lists and the shell say so.

use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::support::fleet::{Fleet, Handle, http};
use crate::support::socket::Socket;

/// A `wheelhouse run`; killed when dropped.
struct Attached(Child);

impl Attached {
    fn start(fleet: &Fleet, id: &str, script: &str) -> Self {
        let args = ["run", "--tenant", "acme", "--job-id", id, "--", "sh", "-c", script];
        let child = fleet.command(&args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.expect("start wheelhouse run"))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shell and an HTTP client at one gateway.
struct Ann<'a> {
    fleet: &'a Fleet,
    address: String,
    token: String,
}

impl<'a> Ann<'a> {
    fn at(fleet: &'a Fleet, gateway: Handle) -> Self {
        Self { fleet, address: fleet.process(gateway).address.clone(), token: fleet.token("ann", "acme") }
    }

    fn shell(&self, args: &[&str]) -> String {
        let (ran, said) = self.try_shell(args);
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        said
    }

    fn try_shell(&self, args: &[&str]) -> (std::process::Output, String) {
        let mut command = self.fleet.command(args);
        command.args(["--url", &format!("http://{}", self.address), "--token", &self.token]);
        let ran = command.output().expect("run");
        let said = String::from_utf8(ran.stdout.clone()).expect("text");
        (ran, said)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let bearer = format!("Bearer {}", self.token);
        let (_, body) = http(&self.address, method, path, &[("authorization", &bearer)], body).expect("an answer");
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {body}"))
    }

    async fn open(&self, path: &str) -> Socket {
        let token = &self.token;
        Socket::open(&format!("ws://{}/api/v1/realtime/ws{path}?token={token}", self.address)).await
    }

    /// A socket on a job, and the snapshot on it.
    async fn watch(&self, job: &str) -> (Socket, Value) {
        let mut socket = self.open(&format!("/jobs/{job}")).await;
        let snapshot = socket.until(&["job_snapshot"]).await;
        (socket, snapshot)
    }
}

/// Sends a command and gives what its ack and its result say of it, after a look that both have it.
async fn command(socket: &mut Socket, action: &str) -> [Value; 2] {
    socket.send(json!({"type": format!("{action}_job")})).await;
    let ack = socket.until(&[&format!("{action}_requested"), "error"]).await;
    let result = socket.until(&[&format!("{action}_succeeded"), &format!("{action}_failed")]).await;
    [ack["control"].clone(), result["control"].clone()]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_about_a_job_says_whether_its_work_or_only_its_row_is_reached() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    fleet.demo_worker();
    let ann = Ann::at(&fleet, gateway);
    let (live, row) = (json!("live"), json!("row"));

    // Of another system: nobody hosts it, whatever is commanded.
    fleet.external_job("acme", "theirs").await;
    let (mut theirs, snapshot) = ann.watch("theirs").await;
    assert_eq!(snapshot["control"], row);
    for action in ["pause", "resume", "resume", "cancel", "cancel"] {
        assert_eq!(command(&mut theirs, action).await, [row.clone(), row.clone()], "{action}");
    }

    // Under `wheelhouse run`, which is no worker of the fleet's own.
    let _run = Attached::start(&fleet, "attached", "while :; do sleep 0.1; done");
    let sql = fleet.sql().await;
    let hosted = async |id: &str| loop {
        let host: Option<Option<String>> =
            sqlx::query_scalar("SELECT host FROM jobs WHERE id = $1").bind(id).fetch_optional(&sql).await.expect("SQL");
        if host.flatten().is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    hosted("attached").await;
    // A job whose kind no worker knows: it waits, and nobody hosts it.
    ann.shell(&["job", "submit", "unheard-of", "--id", "waiting"]);
    // In a worker: a thousand rows at one a second.
    let text: String = (0..1_000).map(|n| format!("{n}\n")).collect();
    std::fs::write(fleet.folder().join("rows.csv"), text).expect("write");
    let parameters = r#"{"path":"rows.csv","rows_per_second":1,"batch_rows":1}"#;
    ann.shell(&["job", "submit", "csv_import", "--id", "inside", "--parameters", parameters]);
    hosted("inside").await;

    for (id, control) in [("attached", &live), ("inside", &live), ("waiting", &row)] {
        let (mut socket, snapshot) = ann.watch(id).await;
        assert_eq!(&snapshot["control"], control, "{snapshot}");
        assert_eq!(&ann.ask("GET", &format!("/api/v1/jobs/{id}"), "")["control"], control, "{id}");
        // A paused job stands inside its worker.
        for action in ["pause", "resume", "pause"] {
            assert_eq!(command(&mut socket, action).await, [control.clone(), control.clone()], "{action} {id}");
        }
        assert_eq!(&ann.watch(id).await.1["control"], control, "{id}, paused");
    }
    let listed = ann.ask("GET", "/api/v1/jobs", "");
    let mut seen: Vec<_> = listed["jobs"]
        .as_array()
        .expect("jobs")
        .iter()
        .map(|job| (job["id"].clone(), job["control"].clone()))
        .collect();
    seen.sort_by_key(|(id, _)| id.to_string());
    let all = [("attached", &live), ("inside", &live), ("theirs", &row), ("waiting", &row)];
    assert_eq!(seen, all.map(|(id, control)| (json!(id), control.clone())));

    // The same request once more is answered as it was, also when the worker has the job no more.
    let ask = || ann.ask("POST", "/api/v1/jobs/inside/resume", r#"{"request_id":"r1"}"#);
    let first = ask();
    assert_eq!((&first["type"], &first["control"]), (&json!("resume_requested"), &live), "{first}");

    // A batch: each item of the ack, each result on the tenant-wide socket, and the answer over HTTP.
    let mut feed = ann.open("").await;
    feed.until(&["subscribed"]).await;
    feed.send(json!({"type": "cancel_jobs", "job_ids": ["attached", "inside", "waiting"], "request_id": "b1"})).await;
    let requested = feed.until(&["batch_requested", "error"]).await;
    let items = requested["items"].as_array().expect("items");
    let controls: Vec<_> = items.iter().map(|item| &item["control"]).collect();
    assert_eq!(controls, [&live, &live, &row], "{requested}");
    for _ in 0..3 {
        let result = feed.until(&["cancel_succeeded", "cancel_failed"]).await;
        let expected = if result["job_id"] == "waiting" { &row } else { &live };
        assert_eq!((&result["status"], &result["control"]), (&json!("cancelled"), expected), "{result}");
    }
    let body = r#"{"type":"cancel_jobs","job_ids":["attached","inside","waiting"],"request_id":"b1"}"#;
    let done = ann.ask("POST", "/api/v1/batch?wait=30", body);
    let controls: Vec<_> = done["items"].as_array().expect("items").iter().map(|item| &item["control"]).collect();
    assert_eq!(controls, [&live, &live, &row], "{done}");
    assert_eq!(ask()["control"], live);
    assert_eq!(ann.ask("GET", "/api/v1/jobs/inside", "")["control"], row, "it has ended: nobody hosts it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_without_a_worker_and_a_shell_say_that_only_the_row_was_meant() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "theirs").await;
    fleet.set("COMMAND__TTL", "1");
    let gateway = fleet.gateway();
    let ann = Ann::at(&fleet, gateway);
    let (mut socket, _) = ann.watch("theirs").await;
    // Nobody carries these out: one is superseded, the other expires.
    socket.send(json!({"type": "pause_job"})).await;
    socket.send(json!({"type": "cancel_job"})).await;
    for (kind, words) in [("pause_failed", "Superseded by cancel"), ("cancel_failed", "Command expired")] {
        let result = socket.until(&[kind]).await;
        assert!(result["error"].as_str().is_some_and(|error| error.starts_with(words)), "{result}");
        assert_eq!(result["control"], "row", "{result}");
    }
    fleet.set("COMMAND__TTL", "3600");
    fleet.worker();
    let gateway = fleet.gateway();
    let ann = Ann::at(&fleet, gateway);
    let said = ann.shell(&["job", "pause", "theirs", "--wait"]);
    assert_eq!(
        said,
        "job theirs is paused\nNo worker hosts it: its row alone was changed. Another program that does its work goes on unless it looks there.\n"
    );
    assert!(ann.shell(&["job", "show", "theirs"]).contains("row: no worker hosts it"));
    let said = ann.shell(&["batch", "cancel", "--jobs", "theirs", "--wait"]);
    assert!(
        said.contains("job theirs is cancelled, in its row alone\n") && said.contains("No worker hosts 1 of"),
        "{said}"
    );
    assert!(!ann.shell(&["job", "show", "theirs"]).contains("no worker hosts"), "there is nothing to command any more");
    // What failed changed no row either.
    for args in [&["job", "pause", "theirs", "--wait"][..], &["batch", "pause", "--jobs", "theirs", "--wait"]] {
        let (ran, said) = ann.try_shell(args);
        assert_eq!(ran.status.code(), Some(1), "{said}");
        assert!(said.contains("completed") && !said.contains("row alone"), "{said}");
        assert!(!said.contains("No worker hosts"), "{said}");
    }
}
