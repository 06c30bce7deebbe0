//! A gateway, workers that listen, and the ways to talk to both.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use crate::support::fleet::{Fleet, Handle, http};
use crate::support::socket::Socket;
use crate::support::{foreign, free_port};

/// A fleet whose workers listen for foreign workers.
pub struct RemoteFixture {
    pub fleet: Fleet,
    pub gateway: Handle,
    pub operator: String,
    pub token: String,
}

/// A worker and where it listens.
#[derive(Debug, Clone)]
pub struct Listening {
    pub handle: Handle,
    pub address: String,
}

impl RemoteFixture {
    /// A gateway, and no worker yet.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let mut fleet = Fleet::new();
        for (key, value) in settings {
            fleet.set(key, value);
        }
        Self::of(fleet)
    }

    /// As [`Self::start`], on the database of this fleet.
    pub fn of(mut fleet: Fleet) -> Self {
        let granted = fleet.command(&["grant", "--user", "ann", "jobs.*"]).output().expect("run wheelhouse grant");
        assert!(granted.status.success(), "grant: {}", String::from_utf8_lossy(&granted.stderr));
        let gateway = fleet.gateway();
        let operator = fleet.token("ann", "acme");
        let token = foreign::token(&fleet, "celery-1", "acme");
        Self { fleet, gateway, operator, token }
    }

    /// Starts a worker that listens.
    pub fn worker(&mut self) -> Listening {
        self.worker_at(&format!("127.0.0.1:{}", free_port()))
    }

    /// Starts a worker that listens here.
    pub fn worker_at(&mut self, address: &str) -> Listening {
        let command = {
            let mut command = self.fleet.command(&["worker", "--listen", address]);
            command.env("WHEELHOUSE__WORKER__LISTEN", "");
            command
        };
        let handle = self.fleet.worker_of(command);
        Listening { handle, address: address.to_owned() }
    }

    /// A session at a worker.
    pub async fn client(&self, worker: &Listening, session: &str) -> Client {
        Client::connect(&worker.address, &self.token, session).await
    }

    /// A worker's memory in KiB.
    pub fn resident(&self, worker: &Listening) -> u64 {
        let path = format!("/proc/{}/status", self.fleet.process(worker.handle).id());
        let status = std::fs::read_to_string(path).expect("the worker lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn gateway_address(&self) -> &str {
        &self.fleet.process(self.gateway).address
    }

    /// Sends a command over the HTTP API and does not wait for its result; gives the command's id.
    pub fn command(&self, action: &str, job: &str) -> String {
        let bearer = format!("Bearer {}", self.operator);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let path = format!("/api/v1/jobs/{job}/{action}");
        let body = json!({"reason": "a reason"}).to_string();
        let (status, body) = http(self.gateway_address(), "POST", &path, &headers, &body).expect("an answer");
        assert_eq!(status, 202, "{body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        answer["command_id"].as_str().expect("a command").to_owned()
    }

    /// The result of a command, if it has one.
    pub fn result(&self, job: &str, command: &str) -> Option<Value> {
        let bearer = format!("Bearer {}", self.operator);
        let path = format!("/api/v1/jobs/{job}/commands/{command}");
        let (_, body) = http(self.gateway_address(), "GET", &path, &[("authorization", bearer.as_str())], "")?;
        let answer: Value = serde_json::from_str(&body).ok()?;
        answer["type"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("_succeeded") || kind.ends_with("_failed"))
            .then_some(answer)
    }

    /// Waits for the result of a command.
    pub async fn result_of(&self, job: &str, command: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(result) = self.result(job, command) {
                return result;
            }
            assert!(Instant::now() < end, "no result; log:\n{}", self.fleet.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The job as the HTTP API shows it.
    pub fn job(&self, job: &str) -> Value {
        let bearer = format!("Bearer {}", self.operator);
        let path = format!("/api/v1/jobs/{job}");
        let (status, body) =
            http(self.gateway_address(), "GET", &path, &[("authorization", bearer.as_str())], "").expect("an answer");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Waits until the job's row has this status.
    pub async fn until_status(&self, job: &str, status: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let now = self.fleet.status("acme", job).await;
            if now == status {
                return;
            }
            assert!(Instant::now() < end, "{job} is {now} and never {status}; log:\n{}", self.fleet.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// An operator's socket on a job.
    pub async fn watch(&self, job: &str) -> Socket {
        self.fleet.socket(self.gateway, "ann", "acme", &format!("jobs/{job}")).await
    }
}
