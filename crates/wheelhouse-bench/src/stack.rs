//! What `make bench` measures: a private Redis, databases, gateways and workers, each a process of its own on a free
//! port, all of them gone with this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command as Plain, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use wheelhouse::cli::bench::environment::BenchEnvironment;

use wheelhouse::config::{self, Settings};
use wheelhouse::store::Store;

/// Longest wait for a process to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Limits out of the way: the bench measures the machine, not them.
const UNLIMITED: [&str; 9] = [
    "limits.commands_per_minute=1000000000",
    "limits.backlog_per_tenant=1000000000",
    "limits.connections_per_tenant=1000000",
    "limits.connections_per_user=1000000",
    "limits.messages_per_second=1000000",
    "limits.requests_per_second=1000000",
    "limits.requests_per_second_per_address=1000000",
    "limits.connections_per_address=1000000",
    "limits.new_connections_per_second=1000000",
];

/// A process under measurement; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) pid: u32,
}

impl Process {
    pub(crate) fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
        let pid = child.id().context("it ended at once")?;
        Ok(Self { child, pid })
    }

    /// SIGTERM, and waits.
    pub(crate) async fn stop(mut self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await;
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

pub(crate) struct Stack {
    folder: PathBuf,
    program: PathBuf,
    pub(crate) redis: Process,
    pub(crate) redis_port: u16,
    pub(crate) settings: Settings,
    postgres: Option<Postgres>,
    logs: usize,
}

impl Stack {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("wheelhouse-bench-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("redis"))?;
        let redis_port = free_port()?;
        let mut command = Command::new("redis-server");
        let port = redis_port.to_string();
        // As in production: what was accepted is written down. The rewriting of that file is left out, because it
        // would fall into one scenario and not into another.
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.args(["--auto-aof-rewrite-percentage", "0", "--maxmemory-policy", "noeviction"]);
        command.arg("--dir").arg(folder.join("redis"));
        let redis = Process::start(command, &folder.join("redis.log"))?;
        let mut settings = config::load_from(None, [], Vec::new())?;
        settings.redis.url = SecretString::from(format!("redis://127.0.0.1:{redis_port}"));
        settings.database.url = SecretString::from(format!("sqlite://{}", folder.join("bench.db").display()));
        settings.auth.hs256_secret = Some(SecretString::from(format!("{:032x}", fastrand::u128(..))));
        // It is built into the same folder.
        let program = std::env::current_exe()?.with_file_name("wheelhouse");
        anyhow::ensure!(program.exists(), "{} is missing: `cargo build --release` makes it", program.display());
        let mut stack = Self { folder, program, redis, redis_port, settings, postgres: None, logs: 0 };
        stack.redis_answers().await?;
        Store::open(&stack.settings.database).await?.migrate().await?;
        Ok(stack)
    }

    async fn redis_answers(&mut self) -> anyhow::Result<()> {
        for _ in 0..400 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.redis_port)).await.is_ok() {
                return Ok(());
            }
            if self.redis.has_ended() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        bail!("redis-server did not start; its log: {}", self.folder.join("redis.log").display())
    }

    /// A tenant to work with.
    pub(crate) async fn environment(&self, settings: &Settings, name: &str) -> anyhow::Result<BenchEnvironment> {
        BenchEnvironment::open(settings.clone(), name).await
    }

    /// Redis as it was at the start, its append-only file too: gigabytes on their way to the disk would be in the
    /// way of whatever comes next.
    pub(crate) async fn flush(&self, environment: &BenchEnvironment) -> anyhow::Result<()> {
        environment.broker.query_any(&["FLUSHALL".to_owned(), "SYNC".to_owned()]).await?;
        environment.broker.query_any(&["BGREWRITEAOF".to_owned()]).await?;
        for _ in 0..200 {
            let info = environment.broker.query_any(&["INFO".to_owned(), "persistence".to_owned()]).await?.join("\n");
            if info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("Redis did not rewrite its append-only file")
    }

    fn own(&mut self, settings: &Settings, arguments: &[&str], set: &[&str]) -> anyhow::Result<Process> {
        use secrecy::ExposeSecret;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WHEELHOUSE__") {
                command.env_remove(name);
            }
        }
        command.env("WHEELHOUSE__REDIS__URL", settings.redis.url.expose_secret());
        command.env("WHEELHOUSE__DATABASE__URL", settings.database.url.expose_secret());
        // No load balancer stands in front that would have to notice.
        command.env("WHEELHOUSE__SERVER__DRAIN_NOTICE_SECONDS", "0");
        if let Some(secret) = &settings.auth.hs256_secret {
            command.env("WHEELHOUSE__AUTH__HS256_SECRET", secret.expose_secret());
        }
        for one in set {
            command.args(["--set", one]);
        }
        command.args(arguments);
        self.logs += 1;
        Process::start(command, &self.folder.join(format!("{}-{}.log", arguments[0], self.logs)))
    }

    /// A gateway with its limits out of the way.
    pub(crate) async fn gateway(&mut self, settings: &Settings) -> anyhow::Result<Gateway> {
        self.gateway_with(settings, &UNLIMITED).await
    }

    pub(crate) async fn gateway_with(&mut self, settings: &Settings, set: &[&str]) -> anyhow::Result<Gateway> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let process = self.own(settings, &["gateway", "--listen", &address.to_string()], set)?;
        let mut gateway = Gateway { process, address };
        let ready = async {
            while !matches!(get_status(address, "/readyz").await, Ok(200)) {
                if gateway.process.has_ended() {
                    bail!("the gateway ended; its log is in {}", self.folder.display());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        tokio::time::timeout(READY_TIMEOUT, ready).await.context("the gateway did not become ready")??;
        Ok(gateway)
    }

    /// So many workers; returns when all of them count as alive.
    pub(crate) async fn workers(
        &mut self,
        environment: &BenchEnvironment,
        count: usize,
    ) -> anyhow::Result<Vec<Process>> {
        let mut workers = Vec::new();
        // Fifty of them must not take up all connections of PostgreSQL.
        let set: &[&str] = if count > 10 { &["database.connections=3"] } else { &[] };
        for _ in 0..count {
            workers.push(self.own(&environment.settings, &["worker"], set)?);
        }
        let alive = async {
            loop {
                let known = environment.broker.all_live_workers().await?;
                let count = known.len();
                if count >= workers.len() {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(READY_TIMEOUT, alive).await.context("the workers did not start")??;
        Ok(workers)
    }

    /// `wheelhouse run` of a program.
    pub(crate) fn run(
        &mut self,
        environment: &BenchEnvironment,
        job: &str,
        program: &[&str],
    ) -> anyhow::Result<Process> {
        let mut arguments = vec!["run", "--tenant", environment.tenant.as_str(), "--job-id", job, "--"];
        arguments.extend(program);
        self.own(&environment.settings, &arguments, &[])
    }

    /// A file in the bench's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Settings with a private PostgreSQL, started at the first call; an error says what is missing.
    pub(crate) async fn with_postgres(&mut self) -> anyhow::Result<Settings> {
        if self.postgres.is_none() {
            self.postgres = Some(Postgres::start(&self.folder)?);
        }
        let port = self.postgres.as_ref().map_or(0, |postgres| postgres.port);
        let mut settings = self.settings.clone();
        settings.database.url = SecretString::from(format!("postgres://postgres@127.0.0.1:{port}/postgres"));
        Store::open(&settings.database).await?.migrate().await?;
        Ok(settings)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        drop(self.postgres.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Postgres {
    port: u16,
    data: PathBuf,
}

impl Postgres {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.join("postgres");
        std::fs::create_dir_all(&folder)?;
        if rustix::process::geteuid().is_root() {
            // It refuses to run as root; then it runs as the user that its package made, who must get there.
            use std::os::unix::fs::PermissionsExt;
            if let Some(parent) = folder.parent() {
                std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755))?;
            }
            Plain::new("chown").arg("postgres").arg(&folder).status()?;
        }
        let data = folder.join("data");
        let made = as_its_user(&binary("initdb")?)
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D"])
            .arg(&data)
            .current_dir("/")
            .output()?;
        if !made.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        let port = free_port()?;
        let options =
            format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200");
        let up = as_its_user(&binary("pg_ctl")?)
            .arg("-D")
            .arg(&data)
            .args(["-w", "-o", &options, "-l"])
            .arg(data.join("server.log"))
            .arg("start")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !up.success() {
            bail!("PostgreSQL did not start");
        }
        Ok(Self { port, data })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Ok(program) = binary("pg_ctl") {
            let mut stop = as_its_user(&program);
            stop.arg("-D").arg(&self.data).args(["-m", "immediate", "stop"]).current_dir("/");
            let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.exists());
    found.with_context(|| format!("{name} is missing: `make deps` installs PostgreSQL"))
}

fn as_its_user(program: &Path) -> Plain {
    if rustix::process::geteuid().is_root() {
        let mut command = Plain::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Plain::new(program)
    }
}

pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The status of a plain GET.
pub(crate) async fn get_status(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut head = [0_u8; 12];
        stream.read_exact(&mut head).await?;
        let code = std::str::from_utf8(&head[9..])?;
        anyhow::Ok(code.parse()?)
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await?
}
