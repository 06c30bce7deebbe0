//! What `wheelhouse run` does with its program's output, and with the signals that it is to ignore.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use sqlx::Row;

use super::support::fleet::Fleet;
use super::{code_of, error_of, send, until};

fn full() -> std::fs::File {
    std::fs::File::options().write(true).open("/dev/full").expect("/dev/full: a disk that is always full")
}

/// Writes, goes on for a while after that has failed, and ends well.
const WRITES: &str = "for n in 1 2 3; do echo line $n; echo problem $n >&2; sleep 0.1; done; echo done > $D/done";

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_does_not_end_the_program_but_its_job_has_failed_and_says_why() {
    for (id, stream) in [("out", "standard output"), ("err", "standard error")] {
        let fleet = Fleet::new();
        let mut run = fleet.command(&["run", "--tenant", "acme", "--job-id", id, "--", "sh", "-c", WRITES]);
        run.env("D", fleet.folder()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if id == "out" {
            run.stdout(full())
        } else {
            run.stderr(full())
        };
        let done = run.spawn().expect("run").wait_with_output().expect("wait");
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(fleet.folder().join("done").exists(), "the program went on: {told}");
        assert_eq!(done.status.code(), Some(1), "its own 0 would be untrue: {told}");
        assert_eq!(fleet.status("acme", id).await, "failed");
        let error = error_of(&fleet, id).await;
        let words = format!("its {stream} could not be written: No space left on device");
        assert!(error.starts_with("exit code 0, but ") && error.contains(&words), "{error}");
        if id == "out" {
            assert!(told.contains(&words) && told.contains("problem 3"), "{told}");
            assert_eq!(told.matches(&words).count(), 2, "once when it happened and once at the end: {told}");
        } else {
            assert_eq!(String::from_utf8_lossy(&done.stdout), "line 1\nline 2\nline 3\n");
        }
    }
}

#[tokio::test]
async fn a_file_that_may_not_grow_is_an_error_of_the_write_and_what_fits_is_there() {
    let fleet = Fleet::new();
    let file = fleet.folder().join("printed");
    let print = "head -c 3000000 /dev/zero; exit 3";
    // The limit counts in blocks of 512 or 1,024 bytes; and the database, which has to grow, stays below it.
    let script = format!("ulimit -f 2000; exec \"$@\" > {}", file.display());
    let run = fleet.command(&["run", "--tenant", "acme", "--job-id", "big", "--", "sh", "-c", print]);
    let mut limited = Command::new("sh");
    limited.args(["-c", &script, "sh"]).arg(run.get_program()).args(run.get_args());
    limited.current_dir(fleet.folder()).stderr(Stdio::piped());
    limited.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = limited.output().expect("run");
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(3), "the program's own: {told}");
    let error = error_of(&fleet, "big").await;
    assert!(error.contains("exit code 3, but its standard output could not be written: File too large"), "{error}");
    let size = std::fs::metadata(&file).expect("the file").len();
    assert!(size == 2_000 * 512 || size == 2_000 * 1_024, "{size}");
}

async fn percent(fleet: &Fleet, id: &str) -> f64 {
    let asked = sqlx::query("SELECT CAST(progress_percent AS REAL) FROM jobs WHERE id = $1").bind(id);
    asked.fetch_optional(&fleet.sql().await).await.expect("the row").map_or(-1.0, |row| row.get(0))
}

#[tokio::test]
async fn a_progress_bar_that_stands_shows_what_it_shows_and_a_line_without_end_too() {
    let fleet = Fleet::new();
    for (id, print, expected) in [
        ("bar", "printf '\\r 10%%\\r 42%%'", 42.0),
        ("line", "printf 'done: 33,9 %%'", 33.0),
        ("err", "printf '7%%' >&2", 7.0),
    ] {
        let script = format!("{print}; while [ ! -e $D/{id} ]; do sleep 0.05; done; exit 1");
        let mut run = fleet.command(&["run", "--tenant", "acme", "--job-id", id, "--", "sh", "-c", &script]);
        let run = run.env("D", fleet.folder()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run");
        let begun = std::time::Instant::now();
        while percent(&fleet, id).await != expected {
            assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{id}: {}", percent(&fleet, id).await);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        std::fs::write(fleet.folder().join(id), "").expect("the word to go on");
        assert_eq!(code_of(run).await, Some(1));
    }
}

/// `wheelhouse run`, started with SIGHUP and SIGINT ignored, as by `nohup` and by a script's `&`.
fn ignoring(fleet: &Fleet, script: &str) -> Child {
    let run = fleet.command(&["run", "--tenant", "acme", "--job-id", "quiet", "--", "sh", "-c", script]);
    let mut quiet = Command::new("sh");
    quiet.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]).arg(run.get_program()).args(run.get_args());
    quiet.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("D", fleet.folder());
    quiet.current_dir(fleet.folder()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    quiet.spawn().expect("run")
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn signals_that_were_ignored_at_the_start_stay_ignored_here_and_in_the_program() {
    let fleet = Fleet::new();
    let run =
        ignoring(&fleet, "grep SigIgn /proc/self/status > $D/ignored; echo $$ > $D/pid; while :; do sleep 0.1; done");
    let file = fleet.folder().join("pid");
    let read = || std::fs::read_to_string(&file).unwrap_or_default().trim().parse::<i32>().ok();
    until("the program", || read().is_some()).await;
    let mask = std::fs::read_to_string(fleet.folder().join("ignored")).expect("its mask");
    let mask = u64::from_str_radix(mask.trim_start_matches("SigIgn:").trim(), 16).expect("a mask");
    assert_eq!(mask & 0b11, 0b11, "SIGHUP and SIGINT are ignored in the program: {mask:x}");
    let own = i32::try_from(run.id()).expect("pid");
    for signal in [Signal::HUP, Signal::INT, Signal::HUP, Signal::INT] {
        send(own, signal);
        send(read().expect("pid"), signal);
    }
    // The first signal that ends it is the one that it names.
    send(own, Signal::TERM);
    assert_eq!(code_of(run).await, Some(143));
    assert_eq!(error_of(&fleet, "quiet").await, "`wheelhouse run` was ended by SIGTERM");
}

#[tokio::test]
async fn a_program_with_an_odd_name_does_nothing_to_the_terminal_of_who_runs_it() {
    let fleet = Fleet::new();
    let program = fleet.folder().join("tidy\u{1b}]0;owned\u{7}\u{202e}");
    std::os::unix::fs::symlink("/bin/true", &program).expect("link");
    let mut run = fleet.command(&["run", "--tenant", "acme", "--job-id", "odd", "--"]);
    let done = run.arg(&program).stderr(Stdio::piped()).output().expect("run");
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(told.contains("tidy\\u{1b}]0;owned") && told.contains("runs as job odd"), "{told}");
    assert!(!told.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{told:?}");
}
