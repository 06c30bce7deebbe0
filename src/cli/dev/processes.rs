//! The processes of `wheelhouse dev`. Each runs under `wheelhouse watch-child`, which ends it when `dev` is gone.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::folder::Folder;
use crate::cli::out::tell;
use crate::config::{Overrides, Settings};
use crate::domain::TenantId;

/// One process and how to start it again.
struct Process {
    name: String,
    arguments: Vec<String>,
    /// It is to be there always, so its end is worth a word; else it is work that has an end, and begins anew.
    always: bool,
    child: Child,
    started: Instant,
}

pub(super) struct Processes {
    program: PathBuf,
    logs: PathBuf,
    redis_data: PathBuf,
    files: PathBuf,
    /// What they are told, over everything else.
    own: Vec<(&'static str, String)>,
    config_file: Option<PathBuf>,
    /// `--set` and its value, as they were given.
    flags: Vec<String>,
    running: Vec<Process>,
}

/// The environment variable of a setting.
fn variable(key: &str) -> String {
    format!("WHEELHOUSE__{}", key.to_uppercase().replace('.', "__"))
}

impl Processes {
    pub(super) fn new(
        folder: &Folder,
        settings: &Settings,
        config_file: Option<PathBuf>,
        overrides: &Overrides,
    ) -> anyhow::Result<Self> {
        let secret = settings.auth.hs256_secret.as_ref().map(|s| s.expose_secret().to_owned()).unwrap_or_default();
        Ok(Self {
            program: std::env::current_exe().context("cannot find its own program")?,
            logs: folder.path("logs"),
            redis_data: folder.path("redis"),
            files: folder.files(),
            own: vec![
                ("server.listen", settings.server.listen.to_string()),
                ("redis.url", settings.redis.url.expose_secret().to_owned()),
                // One that a file names is for another Redis.
                ("redis.ca_file", String::new()),
                ("database.url", settings.database.url.expose_secret().to_owned()),
                ("auth.hs256_secret", secret),
            ],
            config_file,
            flags: overrides.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]).collect(),
            running: Vec::new(),
        })
    }

    /// What these processes are told, as settings.
    pub(super) fn own_settings(&self) -> &[(&'static str, String)] {
        &self.own
    }

    pub(super) async fn redis(&mut self, port: u16) -> anyhow::Result<()> {
        let data = self.redis_data.display().to_string();
        let port_text = port.to_string();
        let arguments = ["redis-server", "--port", &port_text, "--bind", "127.0.0.1", "--dir", &data];
        let more = ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"];
        let command = arguments.iter().chain(&more).map(|argument| (*argument).to_owned()).collect();
        self.start("redis", command, true)?;
        for _ in 0..1_200 {
            if is_redis_up(port).await {
                return Ok(());
            }
            if let Some(process) = self.running.last_mut()
                && process.child.try_wait()?.is_some()
            {
                bail!(
                    "redis-server did not start: is it installed? (`make deps`); its log: {}",
                    self.logs.join("redis.log").display()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("redis-server did not answer within a minute; its log: {}", self.logs.join("redis.log").display())
    }

    pub(super) async fn gateway(&mut self) -> anyhow::Result<()> {
        // No load balancer stands in front: Ctrl-C need not wait until one has noticed.
        let mut command = self.own(&["gateway"]);
        command.splice(1..1, ["--set".to_owned(), "server.drain_notice_seconds=0".to_owned()]);
        self.start("gateway", command, true)
    }

    /// `listen`: where it listens for foreign workers.
    pub(super) fn worker(&mut self, number: usize, listen: Option<SocketAddr>) -> anyhow::Result<()> {
        let files = self.files.display().to_string();
        // An empty one outranks what a file of settings says: no two workers listen on one address.
        let listen = listen.map_or_else(String::new, |address| address.to_string());
        let command = self.own(&["demo-worker", "--files-root", &files, "--listen", &listen]);
        self.start(&format!("worker-{number}"), command, true)
    }

    /// The outside program of the demo, run through `wheelhouse run`.
    pub(super) fn demo_program(&mut self, tenant: &TenantId, program: &super::demo::Program) -> anyhow::Result<()> {
        let mut arguments = vec!["run", "--tenant", tenant.as_str(), "--title", program.title, "--"];
        arguments.extend(program.command.iter().map(String::as_str));
        self.start("program", self.own(&arguments), false)
    }

    fn own(&self, arguments: &[&str]) -> Vec<String> {
        let mut command = vec![self.program.display().to_string()];
        if let Some(file) = &self.config_file {
            command.extend(["--config".to_owned(), file.display().to_string()]);
        }
        command.extend(self.flags.iter().cloned());
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        command
    }

    fn start(&mut self, name: &str, arguments: Vec<String>, always: bool) -> anyhow::Result<()> {
        let child = self.spawn(name, &arguments)?;
        self.running.push(Process { name: name.to_owned(), arguments, always, child, started: Instant::now() });
        Ok(())
    }

    fn spawn(&self, name: &str, arguments: &[String]) -> anyhow::Result<Child> {
        let path = self.logs.join(format!("{name}.log"));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let child = Command::new(&self.program)
            .args(["watch-child", "--"])
            .args(arguments)
            .envs(self.own.iter().map(|(key, value)| (variable(key), value)))
            // Its own group: Ctrl-C reaches `dev` alone, which ends the others in order.
            .process_group(0)
            // Held open until `dev` is gone.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        child.with_context(|| format!("cannot start {name}"))
    }

    /// Starts again what ended by itself, until it is time to stop.
    pub(super) async fn keep_alive(&mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(300)) => {}
            }
            for at in 0..self.running.len() {
                let process = &mut self.running[at];
                // One that ends right after its start is not started again in a tight loop.
                let least = if process.always { Duration::from_secs(1) } else { Duration::from_secs(60) };
                if !matches!(process.child.try_wait(), Ok(Some(_))) || process.started.elapsed() < least {
                    continue;
                }
                let (name, arguments) = (process.name.clone(), process.arguments.clone());
                if process.always {
                    tell!(
                        "{name} ended by itself; starting it again (its log: {})",
                        self.logs.join(format!("{name}.log")).display()
                    );
                }
                match self.spawn(&name, &arguments) {
                    Ok(child) => {
                        self.running[at].child = child;
                        self.running[at].started = Instant::now();
                    }
                    Err(error) => tell!("{error:#}"),
                }
            }
        }
    }

    /// Ends everything, Redis last: the others still have things to hand back.
    pub(super) async fn stop(&mut self) {
        let (redis, others): (Vec<Process>, Vec<Process>) = self.running.drain(..).partition(|p| p.name == "redis");
        for some in [others, redis] {
            let ends = some.into_iter().map(|mut process| async move {
                // Its standard input closes: `watch-child` sends SIGTERM, and SIGKILL after its grace.
                drop(process.child.stdin.take());
                let _ = tokio::time::timeout(Duration::from_secs(25), process.child.wait()).await;
            });
            futures_util::future::join_all(ends).await;
        }
    }
}

/// Whether it answers. One that reads its data in accepts connections already, and refuses all commands.
async fn is_redis_up(port: u16) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0_u8; 5];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(&answer == b"+PONG")
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}
