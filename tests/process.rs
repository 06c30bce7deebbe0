//! Programs under control: real trees of processes, stopped, continued and ended to the last one.

#[path = "process/adopted.rs"]
mod adopted;
#[path = "process/job_control.rs"]
mod job_control;
#[cfg(target_os = "linux")]
#[path = "process/kills.rs"]
mod kills;
#[cfg(target_os = "linux")]
#[path = "process/other_users.rs"]
mod other_users;
mod support;
#[path = "process/terminal.rs"]
mod terminal;

#[path = "process/contact.rs"]
mod contact;
#[path = "process/kept.rs"]
mod kept;
#[path = "process/output.rs"]
mod output;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::fleet::Fleet;
use tokio::task::JoinHandle;
use wheelhouse::worker::process::output::{Sink, pass_through};
use wheelhouse::worker::process::progress::ProgressReader;
use wheelhouse::worker::process::{ExitKind, Process, ProcessError, Program};
use wheelhouse::worker::{ControlOutcome, Controlled};

/// One program, its folder, and what it has printed.
struct ProcessFixture {
    folder: tempfile::TempDir,
    process: Process,
    printed: Arc<Mutex<Vec<u8>>>,
    passing: Vec<JoinHandle<()>>,
}

/// Keeps what is printed.
struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

impl Sink for CapturedOutput {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(())
    }
}

/// Nobody reads it any more.
struct ClosedSink;

impl Sink for ClosedSink {
    async fn write(&mut self, _bytes: &[u8]) -> std::io::Result<()> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
}

fn program(name: &str, arguments: &[&str], grace: Duration) -> Program {
    Program {
        name: name.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        set: Vec::new(),
        unset: Vec::new(),
        stdin: nothing(),
        grace,
        supervisor: env!("CARGO_BIN_EXE_wheelhouse").into(),
    }
}

fn nothing() -> OwnedFd {
    std::fs::File::open("/dev/null").expect("/dev/null").into()
}

impl ProcessFixture {
    /// Starts a shell script; `$D` in it is a folder of its own.
    async fn script(text: &str) -> Self {
        Self::with_grace(text, Duration::from_secs(30)).await
    }

    async fn with_grace(text: &str, grace: Duration) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut program = program("sh", &["-c", text], grace);
        program.set.push(("D".into(), folder.path().into()));
        Self::start(program, folder).await
    }

    async fn start(program: Program, folder: tempfile::TempDir) -> Self {
        let (process, stdout, stderr) = Process::start(program).await.expect("start");
        let printed = Arc::new(Mutex::new(Vec::new()));
        let passing = vec![
            tokio::spawn(pass_through(stdout, CapturedOutput(printed.clone()), |_| {})),
            tokio::spawn(pass_through(stderr, CapturedOutput(printed.clone()), |_| {})),
        ];
        Self { folder, process, printed, passing }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until the file is there, with something in it, and gives the numbers in it.
    async fn numbers(&self, name: &str, how_many: usize) -> Vec<i32> {
        let path = self.file(name);
        let numbers = || -> Vec<i32> {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            text.lines().filter_map(|line| line.trim().parse().ok()).collect()
        };
        until("the program to write its numbers", || numbers().len() >= how_many).await;
        numbers()
    }

    /// Waits for everything that it printed.
    async fn all_printed(self) -> Vec<u8> {
        for passing in self.passing {
            passing.await.expect("pass");
        }
        std::mem::take(&mut self.printed.lock().expect("lock"))
    }
}

async fn until(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// As `ps` shows it, so that the code under test is not its own witness: the state, `None` if it is gone.
fn state(pid: i32) -> Option<char> {
    let asked = std::process::Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output();
    let text = String::from_utf8(asked.expect("ps: install procps").stdout).expect("text");
    text.trim().chars().next()
}

fn lives(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// What has been paused stands still: stopped, or still waiting for the disk (then it has been seen to wait for long) and
/// stopped before it does anything else.
async fn all_stand_still(pids: &[i32]) {
    until(&format!("{pids:?} to be stopped"), || pids.iter().all(|pid| state(*pid) == Some('T'))).await;
}

fn parent(pid: i32) -> i32 {
    let asked = std::process::Command::new("ps").args(["-o", "ppid=", "-p", &pid.to_string()]).output();
    String::from_utf8(asked.expect("ps").stdout).expect("text").trim().parse().expect("a parent")
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("pid"), signal).expect("signal");
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

/// A parent, a child and a grandchild that all write without end.
const FAMILY: &str = "
    work() { while :; do echo x >> $D/$1; done; }
    ( echo $(exec sh -c 'echo $PPID') >> $D/pids; ( echo $(exec sh -c 'echo $PPID') >> $D/pids; work grandchild ) & work child ) &
    echo $$ >> $D/pids
    work parent";

#[tokio::test]
async fn a_pause_stops_the_whole_family_and_a_resume_sets_it_going_again() {
    let fixture = ProcessFixture::script(FAMILY).await;
    let pids = fixture.numbers("pids", 3).await;
    let files = ["parent", "child", "grandchild"].map(|name| fixture.file(name));
    for _ in 0..20 {
        assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
        all_stand_still(&pids).await;
        let before = files.each_ref().map(|file| size(file));
        all_stand_still(&pids).await;
        assert_eq!(files.each_ref().map(|file| size(file)), before, "nothing is written any more");
        fixture.process.resume().await;
        until("all to write again", || files.iter().zip(before).all(|(file, before)| size(file) > before)).await;
    }
    assert_eq!(fixture.process.cancel("ann", None).await, ControlOutcome::Done);
    assert!(!pids.iter().any(|pid| lives(*pid)), "nothing is left");
}

#[tokio::test]
async fn a_program_that_starts_programs_all_the_time_can_be_paused_at_any_moment() {
    let fixture = ProcessFixture::script("while :; do /bin/true; echo x >> $D/turns; done").await;
    let turns = fixture.file("turns");
    for _ in 0..60 {
        let before = size(&turns);
        until("a turn", || size(&turns) > before).await;
        assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
        let before = size(&turns);
        assert_eq!(state(fixture.process.pid()).map(|state| "TD".contains(state)), Some(true));
        assert_eq!(size(&turns), before);
        fixture.process.resume().await;
    }
}

#[tokio::test]
async fn paused_again_or_resumed_again_it_stays_as_it_is() {
    let fixture = ProcessFixture::script("while :; do echo x >> $D/turns; done").await;
    fixture.process.resume().await;
    assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
    assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
    // A pause that is given up before it is there, and taken back.
    fixture.process.resume().await;
    drop(fixture.process.pause());
    let _ = tokio::time::timeout(Duration::ZERO, fixture.process.pause()).await;
    fixture.process.resume().await;
    let before = size(&fixture.file("turns"));
    until("it to run", || size(&fixture.file("turns")) > before).await;
}

#[tokio::test]
async fn who_wakes_a_paused_program_from_outside_does_not_get_far() {
    let fixture = ProcessFixture::script("while :; do echo x >> $D/turns; done").await;
    assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
    for _ in 0..5 {
        send(fixture.process.pid(), Signal::CONT);
        until("it to be stopped again", || state(fixture.process.pid()) == Some('T')).await;
    }
}

#[tokio::test]
async fn a_cancelled_program_may_tidy_up_also_when_it_was_paused() {
    for paused in [false, true] {
        let fixture =
            ProcessFixture::script("trap 'echo tidy; exit 0' TERM; echo 1 >> $D/ready; while :; do sleep 0.01; done")
                .await;
        fixture.numbers("ready", 1).await;
        if paused {
            assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
        }
        assert_eq!(fixture.process.cancel("ann", Some("enough")).await, ControlOutcome::Done);
        let ended = fixture.process.ended().await;
        assert_eq!((ended.how, ended.by_order), (ExitKind::Exited(0), true));
        let printed = String::from_utf8_lossy(&fixture.all_printed().await).into_owned();
        assert!(printed.contains("tidy\n"), "paused: {paused}: {printed:?}");
    }
}

#[tokio::test]
async fn who_does_not_listen_is_killed_after_the_grace() {
    let script = "
        ( trap '' TERM; echo $(exec sh -c 'echo $PPID') >> $D/pids; while :; do sleep 0.1; done ) &
        echo $$ >> $D/pids; wait";
    // Time enough for the program itself to have its turn and obey.
    let grace = Duration::from_secs(3);
    let fixture = ProcessFixture::with_grace(script, grace).await;
    let pids = fixture.numbers("pids", 2).await;
    let begun = Instant::now();
    assert_eq!(fixture.process.cancel("ann", None).await, ControlOutcome::Done);
    assert!(begun.elapsed() >= grace, "not before the grace is over");
    assert!(!pids.iter().any(|pid| lives(*pid)), "cancelled means that nothing is left");
    assert_eq!(fixture.process.ended().await.how, ExitKind::Signalled(15), "the program itself obeyed");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_child_that_leaves_the_group_is_not_lost() {
    let script = "
        setsid sh -c 'echo $$ >> $D/pids; while :; do echo x >> $D/away; done' &
        setsid sh -c '(echo $(exec sh -c \"echo \\$PPID\") >> $D/pids; trap \"\" TERM; while :; do sleep 0.05; done) & exit' 
        echo $$ >> $D/pids
        while :; do sleep 1; done";
    let fixture = ProcessFixture::with_grace(script, Duration::from_millis(300)).await;
    let pids = fixture.numbers("pids", 3).await;
    until("it to write", || size(&fixture.file("away")) > 0).await;
    assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
    all_stand_still(&pids).await;
    let before = size(&fixture.file("away"));
    all_stand_still(&pids).await;
    assert_eq!(size(&fixture.file("away")), before);
    fixture.process.resume().await;
    until("it to write again", || size(&fixture.file("away")) > before).await;
    assert_eq!(fixture.process.cancel("ann", None).await, ControlOutcome::Done);
    assert!(!pids.iter().any(|pid| lives(*pid)), "nothing is left: {pids:?}");
}

#[tokio::test]
async fn the_end_of_a_program_is_told_as_it_was() {
    for (script, how, code) in [
        ("exit 0", ExitKind::Exited(0), 0),
        ("exit 3", ExitKind::Exited(3), 3),
        ("kill -9 $$", ExitKind::Signalled(9), 137),
        ("kill -15 $$", ExitKind::Signalled(15), 143),
    ] {
        let fixture = ProcessFixture::script(script).await;
        let ended = fixture.process.ended().await;
        assert_eq!((ended.how, ended.by_order, ended.left_behind), (how, false, 0), "{script}");
        assert_eq!(ended.how.code(), code);
        // What comes too late changes nothing.
        assert_eq!(fixture.process.pause().await, ControlOutcome::EndedItself);
        assert_eq!(fixture.process.cancel("ann", None).await, ControlOutcome::EndedItself);
        fixture.process.resume().await;
        assert_eq!(fixture.process.ended().await, ended);
    }
    assert_eq!(ExitKind::Signalled(15).to_string(), "ended by SIGTERM");
    assert_eq!(ExitKind::Exited(3).to_string(), "exit code 3");
}

#[tokio::test]
async fn a_program_that_cannot_be_started_says_why() {
    let missing = Process::start(program("no-such-program-at-all", &[], Duration::ZERO)).await.expect_err("missing");
    assert!(matches!(missing, ProcessError::NotStarted { missing: true, .. }), "{missing}");
    let folder = Process::start(program("/tmp", &[], Duration::ZERO)).await.expect_err("a folder");
    assert!(matches!(folder, ProcessError::NotStarted { missing: false, .. }), "{folder}");
    assert!(folder.to_string().contains("cannot start \"/tmp\": Permission denied"), "{folder}");
}

#[tokio::test]
async fn what_a_program_leaves_running_ends_with_it() {
    let fixture = ProcessFixture::script("sleep 1000 & echo $! >> $D/pids; exit 0").await;
    let pids = fixture.numbers("pids", 1).await;
    let ended = fixture.process.ended().await;
    assert_eq!((ended.how, ended.by_order, ended.left_behind), (ExitKind::Exited(0), false, 1));
    assert!(!lives(pids[0]));
    // What ends by itself within a moment is let be: it may have something left to write. On a busy machine it may miss
    // that moment, but not each time.
    for _ in 0..10 {
        let fixture = ProcessFixture::script("( sleep 0.2; echo last words ) & exit 0").await;
        if fixture.process.ended().await.left_behind == 0 {
            assert_eq!(fixture.all_printed().await, b"last words\n");
            return;
        }
    }
    panic!("it is never let be");
}

#[tokio::test]
async fn a_host_that_lets_go_of_a_program_ends_it() {
    let fixture = ProcessFixture::script(FAMILY).await;
    let pids = fixture.numbers("pids", 3).await;
    assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
    drop(fixture);
    until("all to be gone", || !pids.iter().any(|pid| lives(*pid))).await;
}

/// Set in the process that the next test kills.
const VICTIM: &str = "WHEELHOUSE_TEST_VICTIM_FOLDER";

#[tokio::test]
async fn a_host_that_is_killed_leaves_nothing_behind() {
    if let Some(folder) = std::env::var_os(VICTIM) {
        // This is the host that is killed: the same test, in a process of its own.
        let mut program = program("sh", &["-c", FAMILY], Duration::from_secs(30));
        program.set.push(("D".into(), folder));
        let _held = Process::start(program).await.expect("start");
        return std::future::pending().await;
    }
    let folder = tempfile::tempdir().expect("folder");
    let mut host = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_host_that_is_killed_leaves_nothing_behind"])
        .env(VICTIM, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("start a host");
    let pids = || -> Vec<i32> {
        let text = std::fs::read_to_string(folder.path().join("pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    until("the family", || pids().len() == 3).await;
    assert!(pids().iter().all(|pid| lives(*pid)));
    // The parent of the one whose parent is not of the family: they have written in any order.
    let supervisor = pids().into_iter().map(parent).find(|parent| !pids().contains(parent)).expect("a supervisor");
    host.kill().expect("kill the host");
    host.wait().expect("wait");
    until("all to be gone", || !pids().iter().any(|pid| lives(*pid))).await;
    until("the supervisor to be gone", || !lives(supervisor)).await;
}

#[tokio::test]
async fn a_supervisor_that_is_killed_takes_the_program_along() {
    let fixture = ProcessFixture::script(FAMILY).await;
    let pids = fixture.numbers("pids", 3).await;
    send(parent(fixture.process.pid()), Signal::KILL);
    let ended = fixture.process.ended().await;
    assert_eq!((ended.how, ended.by_order), (ExitKind::Unsupervised, false));
    until("all to be gone", || !pids.iter().any(|pid| lives(*pid))).await;
}

#[tokio::test]
async fn output_of_any_bytes_passes_unharmed_and_input_arrives() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("bytes");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&path, &bytes).expect("write");
    let mut program = program("cat", &[], Duration::ZERO);
    program.stdin = std::fs::File::open(&path).expect("open").into();
    let fixture = ProcessFixture::start(program, folder).await;
    assert_eq!(fixture.process.ended().await.how, ExitKind::Exited(0));
    assert!(fixture.all_printed().await == bytes, "the same bytes come out");
}

#[tokio::test]
async fn progress_is_read_from_what_a_program_prints() {
    let script = r#"echo start; echo '10%'; printf '\r 25%% of it\r'; echo '{"progress":40,"items_total":5,"items_processed":2}'; echo 99% full; printf '{"progress":60}'"#;
    let (process, stdout, _stderr) =
        Process::start(program("sh", &["-c", script], Duration::ZERO)).await.expect("start");
    let mut reader = ProgressReader::default();
    let mut seen = Vec::new();
    pass_through(stdout, CapturedOutput(Arc::default()), |line| {
        seen.extend(reader.read(line).map(|p| p.progress_percent))
    })
    .await;
    assert_eq!(seen, [10, 25, 40, 60]);
    assert_eq!(reader.latest().items_total, Some(5));
    assert_eq!(process.ended().await.how, ExitKind::Exited(0));
}

#[tokio::test]
async fn a_program_whose_reader_has_gone_gets_a_broken_pipe() {
    let (process, stdout, _stderr) = Process::start(program("yes", &[], Duration::ZERO)).await.expect("start");
    pass_through(stdout, ClosedSink, |_| {}).await;
    let how = process.ended().await.how;
    assert!(matches!(how, ExitKind::Signalled(13) | ExitKind::Exited(1)), "{how}");
}

/// `wheelhouse run` with the family, as a job `family` of the tenant `acme`; gives it, and the family's ids.
async fn run_family(fleet: &Fleet) -> (std::process::Child, Vec<i32>) {
    run_three(fleet, &["--job-id", "family", "--", "sh", "-c", FAMILY]).await
}

/// `wheelhouse run` for the tenant `acme`, with a script of three processes that write their ids into `$D/pids`; gives it,
/// and those ids.
async fn run_three(fleet: &Fleet, job_and_script: &[&str]) -> (std::process::Child, Vec<i32>) {
    let run = fleet
        .command(&["run", "--tenant", "acme"])
        .args(job_and_script)
        .env("D", fleet.folder())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("wheelhouse run");
    let pids = || -> Vec<i32> {
        let text = std::fs::read_to_string(fleet.folder().join("pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    until("the three", || pids().len() == 3).await;
    (run, pids())
}

async fn code_of(mut run: std::process::Child) -> Option<i32> {
    let mut code = None;
    until("`wheelhouse run` to end", || {
        code = run.try_wait().expect("wait");
        code.is_some()
    })
    .await;
    code.and_then(|status| status.code())
}

#[tokio::test]
async fn an_operator_pauses_resumes_and_cancels_a_program_from_a_socket() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    let (run, pids) = run_family(&fleet).await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/family").await;
    for _ in 0..3 {
        socket.send(json!({"type": "pause_job"})).await;
        socket.until(&["pause_succeeded"]).await;
        all_stand_still(&pids).await;
        socket.send(json!({"type": "resume_job"})).await;
        socket.until(&["resume_succeeded"]).await;
        assert!(!pids.iter().any(|pid| state(*pid) == Some('T')), "resumed means that none does");
    }
    socket.send(json!({"type": "pause_job"})).await;
    socket.until(&["pause_succeeded"]).await;
    socket.send(json!({"type": "cancel_job", "reason": "enough"})).await;
    socket.until(&["cancel_succeeded"]).await;
    assert!(!pids.iter().any(|pid| lives(*pid)), "cancelled means that nothing is left");
    assert_eq!(code_of(run).await, Some(143));
    assert_eq!(fleet.status("acme", "family").await, "cancelled");
}

#[tokio::test]
async fn a_run_that_is_killed_takes_the_program_along() {
    let fleet = Fleet::new();
    let (mut run, pids) = run_family(&fleet).await;
    run.kill().expect("kill");
    run.wait().expect("wait");
    until("all to be gone", || !pids.iter().any(|pid| lives(*pid))).await;
}

#[tokio::test]
async fn a_run_that_is_told_to_end_ends_its_program_and_records_it() {
    let fleet = Fleet::new();
    let (run, pids) = run_family(&fleet).await;
    send(i32::try_from(run.id()).expect("pid"), Signal::TERM);
    assert_eq!(code_of(run).await, Some(143));
    assert!(!pids.iter().any(|pid| lives(*pid)));
    assert_eq!(fleet.status("acme", "family").await, "failed");
}

#[tokio::test]
async fn a_run_ends_as_its_program_does_and_hides_its_own_secrets_from_it() {
    let fleet = Fleet::new();
    let script = "echo out; echo err >&2; env | grep WHEELHOUSE; exit 5";
    let done = fleet.command(&["run", "--tenant", "acme", "--job-id", "one", "--", "sh", "-c", script]).output();
    let done = done.expect("wheelhouse run");
    assert_eq!(done.status.code(), Some(5));
    let out = String::from_utf8(done.stdout).expect("text");
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["WHEELHOUSE_JOB_ID=one", "WHEELHOUSE_TENANT_ID=acme", "out"]);
    let told = String::from_utf8(done.stderr).expect("text");
    assert!(told.contains("err\n") && told.contains("job one failed: exit code 5: err"), "{told}");
    assert_eq!(fleet.status("acme", "one").await, "failed");

    let missing = fleet.command(&["run", "--tenant", "acme", "--job-id", "two", "--", "no-such-program"]).output();
    assert_eq!(missing.expect("wheelhouse run").status.code(), Some(127));
    assert_eq!(fleet.status("acme", "two").await, "failed");

    let well = fleet.command(&["run", "--tenant", "acme", "--job-id", "three", "--", "true"]).output();
    assert_eq!(well.expect("wheelhouse run").status.code(), Some(0));
    assert_eq!(fleet.status("acme", "three").await, "completed");
    let again = fleet.command(&["run", "--tenant", "acme", "--job-id", "three", "--", "true"]).output().expect("run");
    assert_eq!(again.status.code(), Some(1));
    let told = String::from_utf8_lossy(&again.stderr);
    assert!(told.contains("there is a job three already, and it is completed"), "{told}");
}

/// The job's row as `wheelhouse job show --json` would show it, without a gateway.
async fn error_of(fleet: &Fleet, id: &str) -> String {
    use sqlx::Row;
    sqlx::query("SELECT error_message FROM jobs WHERE id = $1")
        .bind(id)
        .fetch_one(&fleet.sql().await)
        .await
        .expect("the job's row")
        .get::<Option<String>, _>(0)
        .unwrap_or_default()
}

#[tokio::test]
async fn a_run_that_takes_longer_than_it_may_ends_its_program_and_has_failed() {
    let fleet = Fleet::new();
    let script = "trap 'echo tidied; exit 0' TERM; echo > $D/$WHEELHOUSE_JOB_ID; while :; do sleep 0.1; done";
    // On a machine that needs longer to start it, it has no time to say how it wants to end: then once more.
    for seconds in [1, 4, 16, 64] {
        let (id, timeout) = (format!("slow-{seconds}"), format!("{seconds}s"));
        let run = ["run", "--tenant", "acme", "--job-id", &id, "--timeout", &timeout, "--", "sh", "-c", script];
        let done = fleet.command(&run).env("D", fleet.folder()).output().expect("wheelhouse run");
        assert_eq!(done.status.code(), Some(124), "as timeout(1) says it");
        assert_eq!(fleet.status("acme", &id).await, "failed");
        assert_eq!(error_of(&fleet, &id).await, format!("timed out after {seconds} s"));
        if fleet.folder().join(id).exists() {
            assert_eq!(String::from_utf8_lossy(&done.stdout), "tidied\n");
            break;
        }
        assert!(seconds < 64, "it was never started");
    }
    let quick = fleet.command(&["run", "--tenant", "acme", "--timeout", "1h", "--", "true"]).output().expect("run");
    assert_eq!(quick.status.code(), Some(0));
}

#[tokio::test]
async fn a_paused_run_that_is_interrupted_ends_by_way_of_running() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    let (run, pids) = run_family(&fleet).await;
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/family").await;
    socket.send(json!({"type": "pause_job"})).await;
    socket.until(&["pause_succeeded"]).await;
    send(i32::try_from(run.id()).expect("pid"), Signal::INT);
    assert_eq!(code_of(run).await, Some(130));
    assert!(!pids.iter().any(|pid| lives(*pid)));
    assert_eq!(fleet.status("acme", "family").await, "failed");
    assert_eq!(error_of(&fleet, "family").await, "`wheelhouse run` was ended by SIGINT");
    let mut steps = Vec::new();
    while steps.last().is_none_or(|step| step != "failed") {
        steps.push(socket.until(&["job_status"]).await["status"].as_str().expect("a status").to_owned());
    }
    assert_eq!(steps, ["running", "failed"], "nothing leads from paused to failed");
}
