//! A private PostgreSQL from the installed binaries, with a database for each test; gone with the test process.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::watchdog::Watchdog;
use sqlx::{AssertSqlSafe, Connection, Executor};

struct Server {
    port: u16,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The address of a new, empty database.
pub async fn database() -> String {
    let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(start)).await.expect("start PostgreSQL");
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let base = format!("postgres://postgres@127.0.0.1:{}", server.port);
    let mut connection = sqlx::PgConnection::connect(&format!("{base}/postgres")).await.expect("connect to PostgreSQL");
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.expect("create a database");
    format!("{base}/{name}")
}

fn binary(name: &str) -> PathBuf {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("{name} is missing: install PostgreSQL with `make deps` (Debian: apt-get install postgresql)")
    })
}

/// PostgreSQL refuses to run as root: then it runs as the user that its package made.
fn as_its_user(program: &PathBuf) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// A server of its own that takes connections with TLS alone, from clients whose certificates this authority has signed and
/// which are called like the user. The address of a database of the user `postgres`.
pub async fn with_client_certificates(authority: &super::tls::Authority) -> String {
    let files = ["server.pem", "server.key", "ca.pem"].map(|name| authority.file().with_file_name(name));
    let server = tokio::task::spawn_blocking(move || {
        start_with(|data| {
            for file in &files {
                let copy = data.join(file.file_name().expect("a name"));
                std::fs::copy(file, &copy).expect("copy");
                if rustix::process::geteuid().is_root() {
                    assert!(Command::new("chown").arg("postgres").arg(&copy).status().expect("chown").success());
                }
                let only_its_own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                std::fs::set_permissions(&copy, only_its_own).expect("chmod");
            }
            std::fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 cert\n").expect("write");
            " -c ssl=on -c ssl_cert_file=server.pem -c ssl_key_file=server.key -c ssl_ca_file=ca.pem"
        })
    });
    format!("postgres://postgres@127.0.0.1:{}/postgres", server.await.expect("start PostgreSQL").port)
}

fn start() -> Server {
    start_with(|_| "")
}

/// `prepare` gets the folder of the data before the server starts, and gives more options.
fn start_with(prepare: impl Fn(&std::path::Path) -> &'static str) -> Server {
    let folder = tempfile::tempdir().expect("a folder for PostgreSQL");
    if rustix::process::geteuid().is_root() {
        let given = Command::new("chown").arg("postgres").arg(folder.path()).status().expect("chown");
        assert!(given.success(), "the user postgres is missing: install PostgreSQL with `make deps`");
    }
    let data = folder.path().join("data");
    // However the test ends, the server ends with it.
    let watchdog = Watchdog::then(&format!(
        "{} -D '{}' -m immediate stop; rm -rf '{}'",
        shell(&as_its_user(&binary("pg_ctl"))),
        data.display(),
        folder.path().display()
    ));
    let made = as_its_user(&binary("initdb"))
        .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D"])
        .arg(&data)
        .current_dir("/")
        .stdout(Stdio::null())
        .output()
        .expect("run initdb");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let more = prepare(&data);
    for _ in 0..10 {
        let port = super::free_port();
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=200{more}"
        );
        let up = as_its_user(&binary("pg_ctl"))
            .arg("-D")
            .arg(&data)
            .args(["-w", "-o", &options, "-l"])
            .arg(folder.path().join("data").join("server.log"))
            .arg("start")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("run pg_ctl");
        if up.success() {
            // For as long as this process lives.
            std::mem::forget(watchdog);
            // The watchdog removes it, after the server has gone.
            let _ = folder.keep();
            return Server { port };
        }
    }
    panic!("PostgreSQL did not start; see its log in {}", data.display());
}

fn shell(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}
