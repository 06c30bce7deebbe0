//! What a program under `wheelhouse run` prints is kept for whoever looks at its job.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::support::fleet::{Fleet, Handle};

/// `wheelhouse job logs` of somebody who may read jobs.
fn logs(fleet: &Fleet, gateway: Handle, args: &[&str]) -> Command {
    let mut command = fleet.command(&["job", "logs"]);
    command.args(args).args(["--url", &format!("http://{}", fleet.process(gateway).address)]);
    command.args(["--token", &fleet.token("ann", "acme")]).stdin(Stdio::null());
    command
}

const PRINTS: &str = r"echo begin; n=0; while [ $n -lt 2000 ]; do printf '\r%d of 2000' $n; n=$((n+1)); done; echo
  printf 'bad \377 end\n'; sleep 1; printf '\033[31mred\033[0m \033]0;title\007\n' >&2; exit 3";

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_is_one_line_and_nothing_that_is_printed_reaches_the_terminal_as_a_command() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    fleet.permit("ann", "jobs.read").await;
    let run = fleet.command(&["run", "--tenant", "acme", "--job-id", "bar", "--", "sh", "-c", PRINTS]).output();
    assert_eq!(run.expect("run").status.code(), Some(3));
    let shown = logs(&fleet, gateway, &["bar"]).output().expect("logs");
    let shown = String::from_utf8(shown.stdout).expect("text");
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(&lines[..3], ["begin", "1999 of 2000", "bad \u{fffd} end"], "{shown}");
    assert!(lines.len() == 4 && lines[3].starts_with("! red ") && lines[3].contains("title"), "{shown}");
    assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
    let last = logs(&fleet, gateway, &["bar", "--tail", "1", "--json"]).output().expect("logs");
    let last: serde_json::Value = serde_json::from_slice(&last.stdout).expect("JSON");
    assert_eq!((&last["lines"][0]["stream"], &last["lines"][0]["line"]), (&"stderr".into(), &4.into()), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_followed_until_the_job_ends() {
    let mut fleet = Fleet::new();
    let gateway = fleet.gateway();
    fleet.permit("ann", "jobs.read").await;
    let script = "echo one; while [ ! -e go ]; do sleep 0.05; done; echo two";
    let mut run = fleet.command(&["run", "--tenant", "acme", "--job-id", "j", "--", "sh", "-c", script]);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("run");
    let mut printed = BufReader::new(run.stdout.take().expect("stdout")).lines();
    assert_eq!(printed.next().expect("a line").expect("text"), "one");
    let mut follow = logs(&fleet, gateway, &["j", "--follow"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("follow");
    let mut lines = BufReader::new(follow.stdout.take().expect("stdout")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "one");
    std::fs::write(fleet.folder().join("go"), "").expect("go");
    assert_eq!(lines.next().expect("a line").expect("text"), "two");
    assert!(lines.next().is_none(), "it ends with the job");
    assert!(follow.wait().expect("wait").success());
    assert!(run.wait().expect("wait").success());
}
