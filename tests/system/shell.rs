//! What a person at a shell gets: `wheelhouse dev`, and the commands beside it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::api::until;
use crate::support::fleet::{Fleet, http_get};
use crate::support::free_port;
use crate::support::socket::PATIENCE;

/// A process; killed when dropped. What a `wheelhouse dev` has started notices that it is gone.
struct Running(Child);

impl Running {
    /// Starts a `dev` in a folder; gives the console's address once it is printed.
    fn dev(folder: &Path, flags: &[&str]) -> (Self, String) {
        let mut command = wheelhouse(folder, &["dev", "--port", "0", "--workers", "1"]);
        let mut dev = Self(command.args(flags).stdout(Stdio::piped()).spawn().expect("start"));
        let out = BufReader::new(dev.0.stdout.take().expect("its output"));
        // The pipe stays open as long as it is read: the rest is read as well.
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some((address, _)) = line.trim().split_once("/?token=") {
                    let _ = tell.send(address.to_owned());
                }
            }
        });
        let address = told.recv_timeout(Duration::from_secs(60)).expect("the console's address");
        (dev, address)
    }

    /// Ctrl-C, and gone.
    fn interrupt(mut self) {
        let pid = Pid::from_raw(self.0.id() as i32).expect("pid");
        kill_process(pid, Signal::INT).expect("signal");
        let begun = Instant::now();
        while self.0.try_wait().expect("wait").is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `wheelhouse ARGS` in a folder, with no setting from anywhere else.
pub fn wheelhouse(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wheelhouse"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WHEELHOUSE")) {
        command.env_remove(name);
    }
    command
}

pub fn output(folder: &Path, args: &[&str]) -> Output {
    wheelhouse(folder, args).output().expect("run wheelhouse")
}

/// What it prints; it must succeed.
pub fn said(folder: &Path, args: &[&str]) -> String {
    let output = output(folder, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn beside_dev_every_command_works_without_settings_and_dev_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("folder");
    let here = &folder.path().join("100% my work");
    std::fs::create_dir(here).expect("a folder with a name as people give them");
    let (dev, address) = Running::dev(here, &["--set", "limits.commands_per_minute=3"]);
    let import = said(here, &["job", "ls", "--limit", "1000"]);
    let import = import.lines().find(|line| line.contains("Import of orders.csv")).expect("the import").to_owned();
    let id = import.split(' ').next().expect("its id").to_owned();
    assert_eq!(said(here, &["run", "--tenant", "acme", "--job-id", "greeting", "--", "echo", "hello"]), "hello\n");
    assert!(said(here, &["job", "show", "greeting", "--follow"]).contains("job greeting completed"));
    assert!(said(here, &["inspect", "workers"]).contains("worker-"));
    assert!(said(here, &["inspect", "user", "nobody", "--tenant", "acme"]).contains("Redis holds nothing of it"));
    assert!(said(here, &["grant", "--user", "ann", "jobs.pause"]).contains("Granted to ann"));
    assert_eq!(said(here, &["token", "--user", "ann", "--tenant", "acme"]).split('.').count(), 3);
    assert!(said(here, &["campaign", "ls"]).contains("300 parts"));
    for _ in 0..3 {
        assert!(said(here, &["job", "pause", &id, "--wait"]).contains("is paused"));
    }
    let refused = output(here, &["job", "pause", &id, "--wait"]);
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(words.contains("3/3 commands per minute") && words.contains("try again in"), "--set reached it: {words}");
    let begun = Instant::now();
    while !said(here, &["audit", "--resource", &id]).contains("succeeded     pause job") {
        assert!(begun.elapsed() < Duration::from_secs(30), "the audit trail stays empty");
        std::thread::sleep(Duration::from_millis(50));
    }
    dev.interrupt();
    assert!(http_get(address.trim_start_matches("http://localhost").trim_start_matches(':'), "/healthz").is_none());
    let kept = here.join(".wheelhouse");
    for name in ["settings.toml", "url", "token"] {
        assert!(!kept.join(name).exists(), "{name} says where nobody is any more");
    }

    // With the demo stopped all commands say the same.
    for args in BESIDE_DEV {
        let stopped = output(here, args);
        assert_eq!(stopped.status.code(), Some(1), "{args:?}: {stopped:?}");
        let words = String::from_utf8_lossy(&stopped.stderr);
        let expected =
            "wheelhouse: no `wheelhouse dev` runs on .wheelhouse: start it with `make demo` or `wheelhouse dev`\n";
        assert_eq!(words, expected, "{args:?}");
    }

    let (dev, _) = Running::dev(here, &[]);
    assert!(said(here, &["job", "show", &id]).contains("paused"), "it goes on where it was");
    // The work goes round: when the import is over, by a cancel for instance, there is another one.
    said(here, &["job", "cancel", &id, "--wait"]);
    let begun = Instant::now();
    let imports = || said(here, &["job", "ls"]).lines().filter(|line| line.contains("Import of orders.csv")).count();
    while imports() < 2 {
        assert!(begun.elapsed() < PATIENCE, "no other import begins");
        std::thread::sleep(Duration::from_millis(100));
    }
    dev.interrupt();
}

/// One of each kind of command that finds a `dev` by itself.
const BESIDE_DEV: [&[&str]; 12] = [
    &["job", "ls"],
    &["job", "show", "j1", "--follow"],
    &["campaign", "ls"],
    &["batch", "pause", "--all"],
    &["schedule", "ls"],
    &["queue", "failed"],
    &["audit"],
    &["inspect", "workers"],
    &["grants"],
    &["grant", "--user", "bob", "jobs.read"],
    &["token", "--user", "ann", "--tenant", "acme"],
    &["run", "--tenant", "acme", "--", "true"],
];

#[test]
fn a_dev_elsewhere_is_found_by_its_folder_or_its_settings_with_every_command() {
    let folder = tempfile::tempdir().expect("folder");
    let (home, here) = (folder.path().join("its home"), folder.path().join("here"));
    std::fs::create_dir(&here).expect("a folder");
    let home_text = home.display().to_string();
    for args in BESIDE_DEV {
        let none = output(&here, &[&["--data-dir", &home_text][..], args].concat());
        let words = String::from_utf8_lossy(&none.stderr);
        assert_eq!(none.status.code(), Some(1), "{args:?}: {words}");
        assert!(words.contains(&format!("no `wheelhouse dev` runs on {home_text}: start it")), "{args:?}: {words}");
    }
    let (dev, _) = Running::dev(&here, &["--data-dir", &home_text]);
    assert!(
        said(&here, &["run", "--data-dir", &home_text, "--tenant", "acme", "--job-id", "j1", "--", "true"]).is_empty()
    );
    let settings = home.join("settings.toml").display().to_string();
    for place in [["--data-dir", &home_text], ["--config", &settings]] {
        for args in BESIDE_DEV {
            // The program comes last, after its own flags.
            let args = match args.iter().position(|word| *word == "--") {
                Some(at) => [&args[..at], &place, &args[at..]].concat(),
                None => [args, &place[..]].concat(),
            };
            said(&here, &args);
        }
    }
    let both = output(&here, &["job", "ls", "--data-dir", &home_text, "--config", &settings]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    assert_eq!(std::fs::read_dir(&here).expect("read").count(), 0, "nothing was left behind where nobody works");
    dev.interrupt();
}

/// `wheelhouse dev` runs each of its processes under one of these.
#[cfg(target_os = "linux")]
#[test]
fn who_watches_over_a_process_takes_it_along_however_it_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let ways: [fn(&mut Running); 2] = [|watch| drop(watch.0.stdin.take()), |watch| watch.0.kill().expect("SIGKILL")];
    for end in ways {
        let mut command = wheelhouse(folder.path(), &["watch-child", "--", "sh", "-c", "echo up; exec sleep 1000"]);
        let mut watch = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start"));
        let mut lines = BufReader::new(watch.0.stdout.take().expect("its output")).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "up");
        end(&mut watch);
        // It had the same output open.
        assert!(lines.next().is_none(), "nobody is left");
    }
}

#[test]
fn without_a_database_commands_say_what_to_do_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().expect("folder");
    for args in [&["audit"][..], &["run", "--tenant", "acme", "--", "true"]] {
        let output = output(folder.path(), args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("run `wheelhouse migrate` first"), "{output:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0, "an empty database was left behind");
    let chosen = output(folder.path(), &["dev", "--set", "redis.url=redis://127.0.0.1:1"]);
    assert_eq!(chosen.status.code(), Some(2), "{chosen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_a_job_is_not_put_off_by_a_gateway_that_is_started_again() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let address = format!("127.0.0.1:{}", free_port());
    let first = fleet.gateway_at(&address);
    let (url, token) = (format!("http://{address}"), fleet.token("ann", "acme"));
    let mut follow = fleet.command(&["job", "show", "j1", "--follow", "--json", "--url", &url, "--token", &token]);
    let mut follow = Running(follow.stdout(Stdio::piped()).spawn().expect("start"));
    let mut lines = BufReader::new(follow.0.stdout.take().expect("its output")).lines();
    let mut next = move || -> serde_json::Value {
        serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON")
    };
    let row = next();
    assert_eq!((&row["id"], &row["status"]), (&"j1".into(), &"running".into()), "{row}");
    fleet.kill(first);
    // While no gateway is there: whoever was back before it would not be told of what plain SQL does to a row.
    let pool = fleet.sql().await;
    sqlx::query("UPDATE jobs SET status = 'failed', error_message = 'no more rows' WHERE id = 'j1'")
        .execute(&pool)
        .await
        .expect("end the job");
    fleet.gateway_at(&address);
    let row = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(next)).await;
    let row = row.expect("a row in time").expect("no panic");
    assert_eq!((&row["status"], &row["error_message"]), (&"failed".into(), &"no more rows".into()), "{row}");
    assert_eq!(follow.0.wait().expect("wait").code(), Some(1), "a job that failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_a_job_is_told_when_no_worker_is_alive_any_more_and_the_metric_says_so() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let gateway = fleet.gateway();
    let address = fleet.process(gateway).address.clone();
    let gauge = |count: u32| {
        let address = address.clone();
        move || {
            let (address, line) = (address.clone(), format!("\nwheelhouse_workers_alive {count}\n"));
            async move { http_get(&address, "/metrics").is_some_and(|(_, text)| text.contains(&line)) }
        }
    };
    until("no worker was ever there", gauge(0)).await;
    let worker = fleet.worker();
    until("one is counted", gauge(1)).await;
    let (url, token) = (format!("http://{address}"), fleet.token("ann", "acme"));
    let mut follow = fleet.command(&["job", "show", "j1", "--follow", "--url", &url, "--token", &token]);
    let mut follow = Running(follow.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("start"));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let lines = BufReader::new(follow.0.stderr.take().expect("its messages")).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let mut next = async || {
        let line = tokio::time::timeout(PATIENCE, told.recv()).await;
        line.expect("a line in time").expect("it goes on")
    };
    assert_eq!(next().await, "wheelhouse: job j1 is running, 0%");
    fleet.kill(worker);
    assert_eq!(next().await, "wheelhouse: no worker is online: commands and queued jobs wait until one is back");
    until("none is counted", gauge(0)).await;
    fleet.worker();
    assert_eq!(next().await, "wheelhouse: a worker is online again");
    until("one is counted again", gauge(1)).await;
}

#[test]
fn whoever_has_read_enough_is_not_told_of_a_panic() {
    let folder = tempfile::tempdir().expect("folder");
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    let mut command = wheelhouse(folder.path(), &["token", "--user", "ann", "--tenant", "acme"]);
    command.env("WHEELHOUSE__AUTH__HS256_SECRET", "a-secret-for-tests-of-32-bytes-or-more").stdout(writer);
    let ended = command.stderr(Stdio::piped()).output().expect("run wheelhouse");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn a_full_disk_under_the_output_is_said_in_one_line_and_a_reader_who_leaves_is_no_fault() {
    let folder = tempfile::tempdir().expect("folder");
    let full =
        || std::fs::File::options().write(true).open("/dev/full").expect("/dev/full: a disk that is always full");
    let token: &[&str] = &["token", "--user", "ann", "--tenant", "acme", "--set"];
    let key = "auth.hs256_secret=0123456789abcdef0123456789abcdef";
    said(folder.path(), &["migrate", "--set", key]);
    let audit: &[&str] = &["audit", "--format", "csv", "--set", key];
    for args in [&["grant", "--list"][..], &[token, &[key]].concat(), audit] {
        let ran = wheelhouse(folder.path(), args).stdout(full()).output().expect("run wheelhouse");
        let words = String::from_utf8(ran.stderr).expect("text");
        assert_eq!(ran.status.code(), Some(1), "{args:?}: {words}");
        assert!(words.starts_with("wheelhouse: cannot write to standard output: No space left"), "{words}");
        assert_eq!(words.lines().count(), 1, "{words}");

        let (theirs, ours) = std::io::pipe().expect("pipe");
        drop(theirs);
        let ran = wheelhouse(folder.path(), args).stdout(ours).output().expect("run wheelhouse");
        assert_eq!((ran.status.code(), ran.stderr), (Some(0), Vec::new()), "{args:?}");
    }
    // With nowhere to complain the exit code still says how it went.
    let ran = wheelhouse(folder.path(), &["grant", "jobs.fly"]).stderr(full()).status().expect("run wheelhouse");
    assert_eq!(ran.code(), Some(2));
}
