//! A private `redis-server` with its append-only file on, killed when dropped, and when the test process is gone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::clock::Clock;
use super::disk::Disk;
use super::watchdog::Watchdog;

/// One `redis-server` on a free port, with its data in a folder of its own.
pub struct RedisServer {
    program: PathBuf,
    port: u16,
    more: Vec<String>,
    env: Vec<(String, PathBuf)>,
    child: Option<Child>,
    // Dropped in this order.
    _watchdog: Watchdog,
    folder: tempfile::TempDir,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(Vec::new)
    }

    /// As [`Self::start`], on a clock that the test sets.
    pub fn start_on(clock: &Clock) -> Self {
        Self::start_with_env(|_| Vec::new(), clock.env())
    }

    /// As [`Self::start`], with more arguments: made anew for each try, for there may be ports among them.
    pub fn start_with(mut more: impl FnMut() -> Vec<String>) -> Self {
        Self::start_with_env(|_| more(), Vec::new())
    }

    /// As [`Self::start_with`], where the arguments depend on its port.
    pub fn start_with_port(more: impl FnMut(u16) -> Vec<String>) -> Self {
        Self::start_with_env(more, Vec::new())
    }

    /// As [`Self::start_with`], one that knows WAITAOF: 7.2 or newer, which `make deps` installs where the machine's is older.
    pub fn start_newer(more: impl FnMut() -> Vec<String>) -> Self {
        Self::start_newer_with_env(more, Vec::new())
    }

    /// As [`Self::start_newer`], on a disk that can be lost.
    pub fn start_newer_on(disk: &Disk, more: impl FnMut() -> Vec<String>) -> Self {
        Self::start_newer_with_env(more, disk.env())
    }

    /// As [`Self::start_with`], on a disk that can be lost.
    pub fn start_with_on(disk: &Disk, mut more: impl FnMut() -> Vec<String>) -> Self {
        Self::start_with_env(|_| more(), disk.env())
    }

    fn start_newer_with_env(mut more: impl FnMut() -> Vec<String>, env: Vec<(String, PathBuf)>) -> Self {
        let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/redis-8/redis-server");
        let program = if installed.exists() { installed } else { PathBuf::from("redis-server") };
        let server = Self::start_program(program, |_| more(), env);
        let known: Vec<redis::Value> = server.query(&["COMMAND", "INFO", "WAITAOF"]).expect("COMMAND INFO");
        let install = "no redis-server 7.2 or newer: install it into target/test-tools with `make deps`";
        assert!(!matches!(known[..], [redis::Value::Nil]), "{install}");
        server
    }

    fn start_with_env(more: impl FnMut(u16) -> Vec<String>, env: Vec<(String, PathBuf)>) -> Self {
        Self::start_program(PathBuf::from("redis-server"), more, env)
    }

    fn start_program(program: PathBuf, mut more: impl FnMut(u16) -> Vec<String>, env: Vec<(String, PathBuf)>) -> Self {
        for _ in 0..20 {
            let folder = tempfile::tempdir().expect("a folder for Redis");
            let _watchdog = Watchdog::over(folder.path());
            let port = super::free_port();
            let program = program.clone();
            let mut server = Self { program, port, more: more(port), env: env.clone(), child: None, _watchdog, folder };
            if server.try_up() {
                return server;
            }
        }
        panic!("redis-server did not start on any of 20 ports");
    }

    /// `redis://…` of this server.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logs.
    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("redis.log")
    }

    /// Where the files are of which its append-only file consists.
    pub fn append_only_folder(&self) -> PathBuf {
        self.folder.path().join("appendonlydir")
    }

    /// Whether it was started and not killed since.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL, as in a crash. The append-only file stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            // Before its id can be another's.
            let _ = std::fs::remove_file(self.folder.path().join("redis.pid"));
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port and data.
    pub fn restart(&mut self) {
        self.kill();
        for _ in 0..50 {
            if self.try_up() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("redis-server did not come back on port {}", self.port);
    }

    /// SIGSTOP or SIGCONT: a server that hangs, and one that goes on.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.as_ref().expect("running").id();
        let pid = rustix::process::Pid::from_raw(id as i32).expect("pid");
        rustix::process::kill_process(pid, signal).expect("signal redis-server");
    }

    /// Sends one inline command, as `redis-cli` would, and gives the first line of the answer.
    pub fn inline(&self, command: &str) -> String {
        answer(self.port, command).0
    }

    /// One command, and its whole answer.
    pub fn query<T: redis::FromRedisValue>(&self, words: &[impl redis::ToRedisArgs]) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut connection)
    }

    /// As [`Self::inline`], for an answer that is a text: `INFO`, `CLUSTER MYID`.
    pub fn text(&self, command: &str) -> String {
        let (first, mut rest) = answer(self.port, command);
        let length = first.strip_prefix('$').and_then(|n| n.parse().ok());
        let mut text = vec![0; length.unwrap_or_else(|| panic!("{command}: {first}"))];
        rest.read_exact(&mut text).expect("text");
        String::from_utf8(text).expect("text")
    }

    /// As [`Self::inline`], for an answer that is a text or a word alone: `ACL DRYRUN`.
    pub fn text_or_status(&self, command: &str) -> String {
        match self.inline(command).strip_prefix('+') {
            Some(status) => status.to_owned(),
            None => self.text(command),
        }
    }

    fn try_up(&mut self) -> bool {
        let folder = self.folder.path().display().to_string();
        let spawned = Command::new(&self.program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""])
            // What Redis has written survives its end, which is all that tests do to it. On a busy disk waiting for the
            // disk would hold up every command for seconds, and hold writes back.
            .args(["--appendfsync", "no"])
            .args(["--dir", &folder, "--pidfile", &format!("{folder}/redis.pid")])
            .args(["--logfile", &self.log_file().display().to_string()])
            .args(&self.more)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = spawned.unwrap_or_else(|error| {
            panic!("cannot start redis-server ({error}): install it with `make deps` (Debian: apt-get install redis-server)")
        });
        for _ in 0..200 {
            if child.try_wait().expect("wait for redis-server").is_some() {
                return false;
            }
            if answers(self.port, child.id()) {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first line of the answer, and what comes after it.
fn answer(port: u16, command: &str) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect to Redis");
    writeln!(stream, "{command}\r").expect("send");
    let (mut line, mut stream) = (String::new(), BufReader::new(stream));
    stream.read_line(&mut line).expect("answer");
    (line.trim_end().to_owned(), stream)
}

/// Whether this very process answers there: the port may have become another program's meanwhile.
fn answers(port: u16, process: u32) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    if stream.write_all(b"PING\r\nINFO server\r\nQUIT\r\n").is_err() {
        return false;
    }
    let lines: Vec<String> = BufReader::new(stream).lines().map_while(Result::ok).collect();
    lines.first().is_some_and(|line| line == "+PONG") && lines.contains(&format!("process_id:{process}"))
}
