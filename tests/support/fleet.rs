//! Gateways and workers as real processes of the real binary, over a private Redis and a SQLite file.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use super::clock::Clock;
use super::redis::RedisServer;
use super::socket::Socket;
use super::watchdog::Watchdog;

/// The key that signs tokens in tests.
pub const SECRET: &str = "a-secret-for-tests-of-32-bytes-or-more";

/// One Redis, one database, and any number of processes on them.
pub struct Fleet {
    /// The Redis they share.
    pub redis: RedisServer,
    settings: Vec<(String, String)>,
    processes: Vec<Process>,
    // Dropped in this order.
    _watchdog: Watchdog,
    folder: tempfile::TempDir,
}

/// One running gateway or worker.
pub struct Process {
    child: Child,
    /// `127.0.0.1:PORT` of a gateway.
    pub address: String,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

/// Which process of a fleet.
#[derive(Debug, Clone, Copy)]
pub struct Handle(usize);

impl Fleet {
    /// Redis and a migrated database; no processes yet.
    pub fn new() -> Self {
        Self::on(RedisServer::start())
    }

    /// As [`Self::new`], on this Redis.
    pub fn on(redis: RedisServer) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let fleet = Self {
            redis,
            settings: Vec::new(),
            processes: Vec::new(),
            _watchdog: Watchdog::over(folder.path()),
            folder,
        };
        let migrated = fleet.command(&["migrate"]).output().expect("run wheelhouse migrate");
        assert!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        fleet
    }

    /// Processes started from now on use another Redis; this one's own ends.
    pub fn move_to(&mut self, url: &str) {
        self.redis.kill();
        self.set("REDIS__URL", url);
    }

    /// A setting for processes started from now on: `("LIMITS__COMMANDS_PER_MINUTE", "5")`.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// The SQLite file.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("wheelhouse.db")
    }

    /// A folder that goes with the fleet.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `wheelhouse ARGS` with this fleet's settings.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wheelhouse"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("WHEELHOUSE__REDIS__URL", self.redis.url())
            .env("WHEELHOUSE__DATABASE__URL", format!("sqlite://{}", self.database().display()))
            .env("WHEELHOUSE__AUTH__HS256_SECRET", SECRET)
            .env("WHEELHOUSE__LOG__FORMAT", "json")
            .env("WHEELHOUSE__LOG__LEVEL", "info")
            .env("WHEELHOUSE__SERVER__DRAIN_NOTICE_SECONDS", "0");
        for (key, value) in &self.settings {
            command.env(format!("WHEELHOUSE__{key}"), value);
        }
        command
    }

    /// Starts a gateway on a port of its own choice and waits until it is ready.
    pub fn gateway(&mut self) -> Handle {
        self.gateway_at("127.0.0.1:0")
    }

    /// As [`Self::gateway`], at this address: of [`super::free_port`] where it is to be started again there, for the
    /// system may give a port of its own choice to somebody else as soon as it is free.
    pub fn gateway_at(&mut self, address: &str) -> Handle {
        let mut command = self.command(&["gateway"]);
        command.env("WHEELHOUSE__SERVER__LISTEN", address);
        self.gateway_of(command)
    }

    /// As [`Self::gateway`], with so many file descriptors.
    pub fn gateway_with_descriptors(&mut self, count: u32) -> Handle {
        let own = self.command(&["gateway"]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {count} && exec \"$@\""), "sh"]).arg(own.get_program());
        command.args(own.get_args()).current_dir(self.folder.path());
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("WHEELHOUSE__SERVER__LISTEN", "127.0.0.1:0");
        self.gateway_of(command)
    }

    /// As [`Self::gateway`], as from a terminal: it hears SIGINT and SIGHUP also where the tests were started with these
    /// ignored, by `nohup` or a script's `&`.
    pub fn gateway_in_front(&mut self) -> Handle {
        let own = self.command(&["gateway"]);
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,HUP").arg(own.get_program()).args(own.get_args());
        command.current_dir(self.folder.path());
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("WHEELHOUSE__SERVER__LISTEN", "127.0.0.1:0");
        self.gateway_of(command)
    }

    /// As [`Self::gateway`], with a second listener for operators, which is waited for: the first may speak TLS. Gives the
    /// address of the second, too.
    pub fn gateway_with_admin(&mut self) -> (Handle, String) {
        let mut command = self.command(&["gateway"]);
        command.env("WHEELHOUSE__SERVER__LISTEN", "127.0.0.1:0").env("WHEELHOUSE__SERVER__ADMIN_LISTEN", "127.0.0.1:0");
        let child = self.spawn(command);
        self.processes.push(Process { child, address: String::new() });
        let handle = Handle(self.processes.len() - 1);
        let begun = Instant::now();
        loop {
            let own = self.addresses_in_log("gateway.started").pop();
            let admin = self.addresses_in_log("gateway.admin_started").pop();
            if let (Some(own), Some(admin)) = (own, admin)
                && http_get(&admin, "/readyz").is_some_and(|(status, _)| status == 200)
            {
                self.processes[handle.0].address = own;
                return (handle, admin);
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "no gateway became ready; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn gateway_of(&mut self, command: Command) -> Handle {
        let before = self.started_gateways().len();
        let mut child = self.spawn(command);
        let begun = Instant::now();
        loop {
            // Its own word says where it listens: a port chosen for it might be somebody else's by now.
            if let Some(address) = self.started_gateways().get(before)
                && http_get(address, "/readyz").is_some_and(|(status, _)| status == 200)
            {
                self.processes.push(Process { child, address: address.clone() });
                return Handle(self.processes.len() - 1);
            }
            let ended = child.try_wait().expect("wait").is_some();
            if ended || begun.elapsed() > Duration::from_secs(30) {
                let _ = std::fs::remove_file(self.pid_file(&child));
                let _ = child.kill();
                let _ = child.wait();
                panic!("no gateway became ready; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where each gateway that ever started here listens.
    fn started_gateways(&self) -> Vec<String> {
        self.addresses_in_log("gateway.started")
    }

    /// The addresses in the lines of one event.
    fn addresses_in_log(&self, event: &str) -> Vec<String> {
        let log = self.log();
        let started = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let started = started.filter(|line| line["message"] == event);
        started.filter_map(|line| line["address"].as_str().map(str::to_owned)).collect()
    }

    /// As [`Self::worker`], on a clock that the test sets.
    pub fn worker_on(&mut self, clock: &Clock) -> Handle {
        let mut command = self.command(&["worker"]);
        command.envs(clock.env());
        let child = self.spawn(command);
        self.processes.push(Process { child, address: String::new() });
        self.until_started(Handle(self.processes.len() - 1))
    }

    /// Starts a worker and waits until it says that it works: its heartbeat and its subscriptions stand.
    pub fn worker(&mut self) -> Handle {
        let worker = self.worker_soon();
        self.until_started(worker)
    }

    /// As [`Self::worker`], one that knows the kinds of job of the demo, and reads files beneath the fleet's folder.
    pub fn demo_worker(&mut self) -> Handle {
        let root = self.folder().display().to_string();
        let child = self.spawn(self.command(&["demo-worker", "--files-root", &root]));
        self.processes.push(Process { child, address: String::new() });
        self.until_started(Handle(self.processes.len() - 1))
    }

    /// As [`Self::worker`], with a command of its own.
    pub fn worker_of(&mut self, command: Command) -> Handle {
        let child = self.spawn(command);
        self.processes.push(Process { child, address: String::new() });
        self.until_started(Handle(self.processes.len() - 1))
    }

    /// Waits until a worker says that it works.
    pub fn until_started(&self, worker: Handle) -> Handle {
        let own = format!("\"worker_id\":\"worker-{}-", self.process(worker).child.id());
        let begun = Instant::now();
        while !self.log().lines().any(|line| line.contains("\"worker.started\"") && line.contains(&own)) {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "the worker never came online; its log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        worker
    }

    /// Starts a worker and waits for nothing: for tests that kill so many that counting them says little.
    pub fn worker_soon(&mut self) -> Handle {
        self.start(&["worker"])
    }

    /// Starts `wheelhouse ARGS` and waits for nothing.
    pub fn start(&mut self, args: &[&str]) -> Handle {
        let child = self.spawn(self.command(args));
        self.processes.push(Process { child, address: String::new() });
        Handle(self.processes.len() - 1)
    }

    fn spawn(&self, mut command: Command) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("log file");
        let started = command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log).spawn();
        let child = started.expect("start wheelhouse");
        std::fs::write(self.pid_file(&child), child.id().to_string()).expect("write the id");
        child
    }

    /// For the watchdog, as long as the id is this child's.
    fn pid_file(&self, child: &Child) -> PathBuf {
        self.folder.path().join(format!("{}.pid", child.id()))
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("processes.log")
    }

    /// What every process has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The process.
    pub fn process(&self, handle: Handle) -> &Process {
        &self.processes[handle.0]
    }

    /// Sends a signal.
    pub fn signal(&self, handle: Handle, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.process(handle).child.id() as i32).expect("pid");
        rustix::process::kill_process(pid, signal).expect("signal");
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self, handle: Handle) {
        let _ = std::fs::remove_file(self.pid_file(&self.processes[handle.0].child));
        let child = &mut self.processes[handle.0].child;
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Waits until it has ended by itself; gives the exit code.
    pub fn wait(&mut self, handle: Handle) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.processes[handle.0].child.try_wait().expect("wait") {
                let _ = std::fs::remove_file(self.pid_file(&self.processes[handle.0].child));
                return status.code();
            }
            assert!(begun.elapsed() < Duration::from_secs(40), "the process did not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A signed token.
    pub fn token(&self, user: &str, tenant: &str) -> String {
        let made = self.command(&["token", "--user", user, "--tenant", tenant]).output().expect("run wheelhouse token");
        assert!(made.status.success(), "token: {}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).expect("text").trim().to_owned()
    }

    /// Opens a socket on a resource (`jobs/ID`, `campaigns/ID`) through a gateway and reads up to the snapshot.
    pub async fn socket(&self, gateway: Handle, user: &str, tenant: &str, path: &str) -> Socket {
        let token = self.token(user, tenant);
        let url = format!("ws://{}/api/v1/realtime/ws/{path}?token={token}", self.process(gateway).address);
        let mut socket = Socket::open(&url).await;
        assert_eq!(socket.next().await["type"], "subscribed");
        let snapshot = socket.next().await;
        assert!(snapshot["type"].as_str().is_some_and(|t| t.ends_with("_snapshot")), "{snapshot}");
        socket
    }

    /// The database, for plain SQL as another system would write it.
    pub async fn sql(&self) -> SqlitePool {
        let options = SqliteConnectOptions::new().filename(self.database()).busy_timeout(Duration::from_secs(10));
        SqlitePoolOptions::new().max_connections(2).connect_with(options).await.expect("open the database")
    }

    /// A job that another system put there, running.
    pub async fn external_job(&self, tenant: &str, id: &str) {
        sqlx::query("INSERT INTO jobs (id, tenant_id, job_type, title, status) VALUES ($1, $2, 'import', 'by another system', 'running')")
            .bind(id)
            .bind(tenant)
            .execute(&self.sql().await)
            .await
            .expect("insert a job");
    }

    /// A permission by plain SQL, as the specification shows.
    pub async fn permit(&self, user: &str, permission: &str) {
        sqlx::query("INSERT INTO user_permissions (user_id, permission) VALUES ($1, $2)")
            .bind(user)
            .bind(permission)
            .execute(&self.sql().await)
            .await
            .expect("insert a permission");
    }

    /// The status of a job in SQL.
    pub async fn status(&self, tenant: &str, id: &str) -> String {
        use sqlx::Row;
        sqlx::query("SELECT status FROM jobs WHERE tenant_id = $1 AND id = $2")
            .bind(tenant)
            .bind(id)
            .fetch_one(&self.sql().await)
            .await
            .expect("the job's row")
            .get(0)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// A plain HTTP GET; `None` if nobody answers.
pub fn http_get(address: &str, path: &str) -> Option<(u16, String)> {
    http(address, "GET", path, &[], "")
}

/// A plain HTTP request; `None` if nobody answers.
pub fn http(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<(u16, String)> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(15))).ok()?;
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default();
    Some((status, body))
}
