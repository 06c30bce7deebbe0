//! The real thing: gateways, workers and `wheelhouse run` as processes, redis-server, SQL, and proxies between them.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wheelhouse::broker::Keys;
use wheelhouse::config::{self, Settings};

use crate::one_redis::OneRedis;
use crate::plan::{Act, COMES_AND_GOES, Database, GATEWAYS, Plan, Process, TENANT, Topology, WAVERING, WHOLE, WORKERS};
use crate::report;
use crate::servers::{PARTITIONS, Servers};
use crate::sql::{Lock, Sql};
use crate::support::fleet::{Fleet, SECRET, http_get};
use crate::support::proxy::Proxy;
use crate::support::{foreign, free_port, postgres};

/// Rows of the file that queued jobs read, and how many of them a second: they never come to its end.
const ROWS: u32 = 50_000;
const ROWS_PER_SECOND: u32 = 20;
/// `worker.reattach_seconds`.
pub const REATTACH: Duration = Duration::from_secs(6);
/// Longest wait for everybody to be there.
pub const UP: Duration = Duration::from_secs(60);

pub struct Cluster {
    fleet: Fleet,
    pub sql: Sql,
    database_url: String,
    nodes: Vec<Node>,
    /// Between clients and each gateway.
    doors: Vec<Proxy>,
    /// Between foreign sessions and each worker.
    listeners: Vec<Proxy>,
    lock: Option<Lock>,
    one_redis: OneRedis,
    servers: Servers,
    /// `WHEELHOUSE_TEST_FAULTS` of every process: a guard that is off.
    switch: Option<&'static str>,
    /// `redis.published_channels` and `redis.heard_channels` of every process.
    channels: &'static str,
    /// Of the run: see [`report::name`].
    name: String,
    logs_kept: Cell<bool>,
}

/// One process of the program.
struct Node {
    process: Process,
    args: Vec<String>,
    /// Where a gateway or a worker listens.
    port: Option<u16>,
    to_redis: Proxy,
    to_postgres: Option<Proxy>,
    child: Option<Child>,
    /// It is to run, and is started again should it end; `wheelhouse run` is not: its job ended with it.
    wanted: bool,
}

impl Process {
    pub fn name(self) -> String {
        match self {
            Self::Gateway(n) => format!("gateway-{n}"),
            Self::Worker(n) => format!("worker-{n}"),
            Self::Run(n) => format!("run-{n}"),
        }
    }
}

impl Cluster {
    /// Redis, a migrated database with the plan's rows, and every process.
    pub async fn start(plan: &Plan) -> Self {
        let mut cluster = Self::without_processes(plan, None).await;
        for n in 0..GATEWAYS {
            cluster.add(Process::Gateway(n), &["gateway"]).await;
        }
        for n in 0..WORKERS {
            cluster.add_worker(Process::Worker(n)).await;
        }
        for (n, job) in plan.attached().enumerate() {
            let endless = "while :; do sleep 0.3; done";
            let args = ["run", "--tenant", TENANT, "--job-id", job, "--", "sh", "-c", endless];
            cluster.add(Process::Run(n), &args).await;
        }
        cluster.all_up().await;
        cluster
    }

    /// As [`Self::start`], but for the processes. `switch`: see `src/faults.rs`.
    pub async fn without_processes(plan: &Plan, switch: Option<&'static str>) -> Self {
        let (redis, one_redis) = OneRedis::start(plan.topology);
        let mut fleet = Fleet::on(redis);
        let servers = Servers::start(plan.topology).await;
        let waits = match plan.topology {
            Topology::Single => None,
            Topology::Sentinel | Topology::Cluster => Some("REDIS__REPLICAS_TO_WAIT"),
            Topology::Disk => Some("REDIS__FSYNCS_TO_WAIT"),
        };
        waits.inspect(|waits| fleet.set(waits, &plan.copies_to_wait.to_string()));
        fleet.set("COMMAND__LEASE_SECONDS", "2");
        fleet.set("WORKER__REATTACH_SECONDS", &REATTACH.as_secs().to_string());
        // Workers die of the plan here, and not of the jobs that they run.
        fleet.set("WORKER__DEATHS_PER_JOB", "1000000");
        let mut database_url = format!("sqlite://{}", fleet.database().display());
        let sql = match plan.database {
            Database::Sqlite => Sql::sqlite(&fleet.database()).await,
            Database::Postgres => {
                database_url = postgres::database().await;
                fleet.set("DATABASE__URL", &database_url);
                let migrated = fleet.command(&["migrate"]).output().expect("run wheelhouse migrate");
                assert!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
                Sql::postgres(&database_url).await
            }
        };
        let cluster = Self {
            fleet,
            sql,
            database_url,
            nodes: Vec::new(),
            doors: Vec::new(),
            listeners: Vec::new(),
            lock: None,
            one_redis,
            servers,
            switch,
            channels: if plan.sharded_channels { "sharded" } else { "plain" },
            name: report::name(plan),
            logs_kept: Cell::new(false),
        };
        cluster.fill(plan).await;
        cluster.sql.log_effects().await;
        cluster
    }

    /// The plan's users and rows, put there by plain SQL.
    async fn fill(&self, plan: &Plan) {
        std::fs::write(self.fleet.folder().join("rows.csv"), "one,two\n".repeat(ROWS as usize))
            .expect("write the file of the queued jobs");
        let parameters = serde_json::json!({
            "path": "rows.csv", "first_row": 1, "rows": ROWS, "rows_per_second": ROWS_PER_SECOND,
        });
        let mut text = String::new();
        for (user, rights) in &plan.rights {
            for right in rights {
                text += &format!("INSERT INTO user_permissions (user_id, permission) VALUES ('{user}', '{right}');\n");
            }
        }
        for subject in &plan.subjects {
            use crate::history::Nature::{Attached, Campaign, External, Foreign, Queued};
            let (kind, id) = subject.name.split_once(':').expect("a name");
            let campaign = subject.campaign.as_deref().and_then(|name| name.split_once(':'));
            let campaign = campaign.map_or("NULL".to_owned(), |(_, id)| format!("'{id}'"));
            let status = &subject.status;
            text += &match subject.nature {
                Campaign => format!("INSERT INTO {kind}s (id, tenant_id, name) VALUES ('{id}', '{TENANT}', '{id}');\n"),
                External | Foreign => format!(
                    "INSERT INTO jobs (id, tenant_id, campaign_id, job_type, status)
                     VALUES ('{id}', '{TENANT}', {campaign}, 'elsewhere', '{status}');\n"
                ),
                Queued => format!(
                    "INSERT INTO jobs (id, tenant_id, campaign_id, job_type, status, origin, parameters)
                     VALUES ('{id}', '{TENANT}', {campaign}, 'demo_step', '{status}', 'queued', '{parameters}');\n"
                ),
                Attached => String::new(),
            };
        }
        self.sql.run(&text).await.expect("insert the rows of the plan");
    }

    /// Starts one more worker, which knows the kind of the queued jobs.
    pub async fn add_worker(&mut self, process: Process) {
        let files = self.fleet.folder().display().to_string();
        self.add(process, &["demo-worker", "--files-root", &files]).await;
    }

    /// Starts one more process.
    pub async fn add(&mut self, process: Process, args: &[&str]) {
        let port = (!matches!(process, Process::Run(_))).then(free_port);
        match (process, port) {
            (Process::Gateway(_), Some(port)) => self.doors.push(Proxy::to(port).await),
            (_, Some(port)) => self.listeners.push(Proxy::to(port).await),
            (_, None) => {}
        }
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let to_redis = Proxy::to(self.fleet.redis.port()).await;
        let to_postgres = match self.postgres_port() {
            Some(port) => Some(Proxy::to(port).await),
            None => None,
        };
        self.nodes.push(Node { process, args, port, to_redis, to_postgres, child: None, wanted: true });
        self.spawn(self.nodes.len() - 1);
    }

    fn postgres_port(&self) -> Option<u16> {
        let address = self.database_url.strip_prefix("postgres://postgres@127.0.0.1:")?;
        address.split('/').next()?.parse().ok()
    }

    fn spawn(&mut self, at: usize) {
        let node = &self.nodes[at];
        let args: Vec<&str> = node.args.iter().map(String::as_str).collect();
        let log = self.log_file(node.process);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("log file");
        let mut command = self.fleet.command(&args);
        command
            .env(
                "WHEELHOUSE__REDIS__URL",
                self.servers.url().unwrap_or_else(|| format!("redis://127.0.0.1:{}", node.to_redis.port())),
            )
            .env("WHEELHOUSE__REDIS__PUBLISHED_CHANNELS", self.channels)
            .env("WHEELHOUSE__REDIS__HEARD_CHANNELS", self.channels)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log);
        if let (Some(port), Some(proxy)) = (self.postgres_port(), &node.to_postgres) {
            let url = self.database_url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
            command.env("WHEELHOUSE__DATABASE__URL", url);
        }
        command.envs(self.switch.map(|switch| ("WHEELHOUSE_TEST_FAULTS", switch)));
        if let Some(port) = node.port {
            let section = if matches!(node.process, Process::Gateway(_)) { "SERVER" } else { "WORKER" };
            command.env(format!("WHEELHOUSE__{section}__LISTEN"), format!("127.0.0.1:{port}"));
        }
        self.nodes[at].child = Some(command.spawn().expect("start wheelhouse"));
    }

    fn log_file(&self, process: Process) -> PathBuf {
        self.fleet.folder().join(format!("{}.log", process.name()))
    }

    /// What the process has logged.
    pub fn log(&self, process: Process) -> String {
        std::fs::read_to_string(self.log_file(process)).unwrap_or_default()
    }

    /// Copies what every process has logged, and every Redis, into this folder.
    pub fn keep_logs(&self, folder: &std::path::Path) {
        self.logs_kept.set(true);
        eprintln!("chaos: the logs of all processes are in {}", folder.display());
        // What is left of an earlier run would be taken for a part of this one.
        let _ = std::fs::remove_dir_all(folder);
        let _ = std::fs::create_dir_all(folder);
        let programs = self.nodes.iter().map(|node| (node.process.name(), self.log_file(node.process)));
        let redis = [("redis".to_owned(), self.fleet.redis.log_file())];
        for (name, from) in programs.chain(redis).chain(self.servers.log_files()) {
            let _ = std::fs::copy(&from, folder.join(format!("{name}.log")));
        }
    }

    /// Lines of all processes that tell of a bug.
    pub fn panics(&self) -> Vec<String> {
        let logs = self.nodes.iter().map(|node| (node.process.name(), self.log(node.process)));
        logs.flat_map(|(name, log)| {
            let panics = log.lines().filter(|line| line.contains("panicked")).map(|line| format!("{name}: {line}"));
            panics.collect::<Vec<_>>()
        })
        .collect()
    }

    fn find(&self, process: Process) -> Option<usize> {
        self.nodes.iter().position(|node| node.process == process)
    }

    fn signal(&self, process: Process, signal: Signal) {
        let child = self.find(process).and_then(|at| self.nodes[at].child.as_ref());
        if let Some(pid) = child.and_then(|child| Pid::from_raw(child.id() as i32)) {
            let _ = kill_process(pid, signal); // It may have ended by itself; nobody has waited for it yet.
        }
    }

    /// Breaks or mends something.
    pub async fn act(&mut self, act: Act) {
        if self.servers.act(act) {
            return;
        }
        match act {
            // There is nothing else that could be the master.
            Act::SplitBrain(_) | Act::SplitEnds | Act::Switch(_) | Act::ShardDown(_) | Act::MoveSlot => {}
            Act::RedisDown(_)
            | Act::RedisUp
            | Act::RedisHangs(_)
            | Act::RedisGoesOn
            | Act::PowerLoss
            | Act::DiskStalls
            | Act::DiskGoesOn => self.one_redis.act(&mut self.fleet.redis, act),
            Act::Kill(process) => {
                if let Some(at) = self.find(process) {
                    self.nodes[at].wanted = false;
                    end(self.nodes[at].child.take());
                }
            }
            Act::Start(process) => {
                if let Some(at) = self.find(process) {
                    self.nodes[at].wanted = true;
                    if self.nodes[at].child.is_none() {
                        self.spawn(at);
                    }
                }
            }
            Act::Stop(process) => self.signal(process, Signal::STOP),
            Act::Continue(process) => self.signal(process, Signal::CONT),
            Act::ToRedis(process, line) => {
                if let Some(at) = self.find(process) {
                    self.nodes[at].to_redis.set(line);
                }
            }
            Act::ToSql(process, line) => {
                let proxy = self.find(process).and_then(|at| self.nodes[at].to_postgres.as_ref());
                proxy.inspect(|proxy| proxy.set(line));
            }
            Act::ToGateway(n, line) => self.doors[n].set(line),
            Act::ToListener(n, line) => self.listeners[n].set(line),
            Act::LockSql => {
                if self.lock.is_none() {
                    self.lock = self.sql.lock().await.ok();
                }
            }
            Act::UnlockSql => {
                if let Some(lock) = self.lock.take() {
                    lock.release().await;
                }
            }
            Act::EndSqlConnections => self.sql.end_connections().await,
            Act::Rights { held } => drop(self.set_rights(held).await),
        }
    }

    /// Waits until another master is named than the one that was broken.
    pub async fn until_switched(&self) {
        self.servers.until_switched().await;
    }

    /// Takes the wavering user's right, or gives it back. `false`: the test itself has locked SQL just now, and
    /// nothing was done.
    pub async fn set_rights(&mut self, held: bool) -> bool {
        if self.lock.is_some() {
            return false;
        }
        let delete =
            format!("DELETE FROM user_permissions WHERE user_id = '{WAVERING}' AND permission = '{COMES_AND_GOES}';");
        let insert = format!(
            "INSERT INTO user_permissions (user_id, permission) VALUES ('{WAVERING}', '{COMES_AND_GOES}')
             ON CONFLICT DO NOTHING;"
        );
        let statement = if held { &insert } else { &delete };
        for _ in 0..3 {
            if self.sql.run(statement).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Processes that ended although they are wanted are started again, as any service manager does.
    pub fn supervise(&mut self) {
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let ended = node.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_some()));
            if ended && node.wanted && !matches!(node.process, Process::Run(_)) {
                self.spawn(at);
            }
        }
    }

    /// Mends everything, and waits until every gateway is ready.
    pub async fn mend(&mut self) {
        use crate::plan::Line::Pass;
        self.act(Act::UnlockSql).await;
        self.act(Act::DiskGoesOn).await;
        self.act(Act::RedisUp).await;
        self.act(Act::RedisGoesOn).await;
        self.act(Act::SplitEnds).await;
        self.servers.until_whole().await;
        for process in self.nodes.iter().map(|node| node.process).collect::<Vec<_>>() {
            self.act(Act::ToRedis(process, Pass)).await;
            self.act(Act::ToSql(process, Pass)).await;
            self.act(Act::Continue(process)).await;
            self.act(Act::Start(process)).await;
        }
        self.doors.iter().chain(&self.listeners).for_each(|door| door.set(Pass));
        self.all_up().await;
    }

    /// Waits until every gateway is ready, and every attached job has its row.
    pub async fn all_up(&mut self) {
        let begun = Instant::now();
        loop {
            self.supervise();
            let is_up = |node: &&Node| {
                let answer =
                    |port: u16| tokio::task::block_in_place(|| http_get(&format!("127.0.0.1:{port}"), "/readyz"));
                match node.process {
                    Process::Run(_) => self.log(node.process).contains("runs as job"),
                    // Whether the others see it is for the commands to show: here it is only to have been started.
                    Process::Worker(_) => true,
                    _ => node.port.is_none_or(|port| answer(port).is_some_and(|(status, _)| status == 200)),
                }
            };
            let Some(missing) = self.nodes.iter().find(|node| !is_up(node)) else { return };
            let (name, log) = (missing.process.name(), self.log(missing.process));
            let last = log.lines().last().unwrap_or("nothing");
            assert!(begun.elapsed() < UP, "{name} did not come up; it said last: {last}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// `ws://…` of a resource (`job:j1`) at a gateway, for this user.
    pub fn url(&self, gateway: usize, through_proxy: bool, resource: &str, token: &str) -> String {
        let port = if through_proxy { self.doors[gateway].port() } else { self.gateway_port(gateway) };
        let path = match resource.split_once(':') {
            Some((kind, id)) => format!("/{kind}s/{id}"),
            None if resource == WHOLE => String::new(),
            None => panic!("{resource} is no resource"),
        };
        format!("ws://127.0.0.1:{port}/api/v1/realtime/ws{path}?token={token}")
    }

    /// Where a gateway listens.
    pub fn gateway_port(&self, gateway: usize) -> u16 {
        self.find(Process::Gateway(gateway)).and_then(|at| self.nodes[at].port).expect("a gateway")
    }

    /// The partition of the test's tenant, as `/readyz` names it.
    pub fn partition(&self) -> String {
        Keys::new(PARTITIONS).partition(&TENANT.parse().expect("tenant")).to_string()
    }

    pub fn token(&self, user: &str) -> String {
        tokio::task::block_in_place(|| self.fleet.token(user, TENANT))
    }

    /// Where foreign sessions find the workers; each begins with another one.
    pub fn listeners(&self, first: usize) -> Vec<String> {
        let mut addresses: Vec<String> =
            self.listeners.iter().map(|door| format!("127.0.0.1:{}", door.port())).collect();
        addresses.rotate_left(first % self.listeners.len());
        addresses
    }

    /// A token of foreign workers.
    pub fn worker_token(&self) -> String {
        tokio::task::block_in_place(|| foreign::token(&self.fleet, "simulated", TENANT))
    }

    /// Settings to read Redis and SQL with, past all proxies.
    pub fn settings(&self) -> Settings {
        let flags = [
            ("redis.url", self.servers.url().unwrap_or_else(|| self.fleet.redis.url())),
            ("database.url", self.database_url.clone()),
            ("auth.hs256_secret", SECRET.to_owned()),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value)).to_vec();
        config::load_from(None, Vec::new(), flags).expect("settings")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Also of a run that did not come to its verdict, whose folder is gone a moment later. A verdict has kept them already.
        if std::thread::panicking() && !self.logs_kept.get() {
            self.keep_logs(&report::file(&self.name).with_extension("logs"));
        }
        for node in &mut self.nodes {
            end(node.child.take());
        }
    }
}

/// SIGKILL, and gone.
fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}
