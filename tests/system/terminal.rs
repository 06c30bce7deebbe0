//! What a person at a terminal gets, and what a script gets in its place.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::fleet::{Fleet, Handle};

/// A title that would write to the clipboard, clear the screen, turn text round, hide some, and invent a row.
const EVIL: &str =
    "x\u{1b}]52;c;ZXZpbA==\u{7}\u{9b}2J\u{202e}gpj\u{2066}\u{200b}\u{feff}\u{7f}\nj9  running     0%  invented";

/// `wheelhouse ARGS` as ann of acme, through this gateway.
fn ann(fleet: &Fleet, gateway: Handle, args: &[&str]) -> Command {
    let mut command = fleet.command(args);
    command.env("WHEELHOUSE_URL", format!("http://{}", fleet.process(gateway).address));
    command.env("WHEELHOUSE_TOKEN", fleet.token("ann", "acme"));
    command
}

/// The same on a terminal of its own, with this typed; what the terminal got, and the exit code.
fn on_a_terminal(command: &Command, typed: &str) -> (String, Option<i32>) {
    let quote = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
    let words: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.current_dir(command.get_current_dir().expect("its folder"));
    let mut running = script.spawn().expect("run script(1)");
    let mut keyboard = running.stdin.take().expect("piped");
    keyboard.write_all(typed.as_bytes()).expect("type");
    // Its end would end the terminal.
    let done = running.wait_with_output().expect("wait");
    drop(keyboard);
    (String::from_utf8_lossy(&done.stdout).replace("\r\n", "\n"), done.status.code())
}

fn said(mut command: Command) -> (String, String, Option<i32>) {
    let done = command.output().expect("run wheelhouse");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (text(done.stdout), text(done.stderr), done.status.code())
}

/// Nothing but visible text and line ends.
fn assert_harmless(what: &str, text: &str) {
    let odd = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    assert!(!text.contains(odd), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("j9")), "{what} shows an invented row: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_text_does_nothing_to_a_terminal_and_stays_as_it_is_for_scripts() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    let sql = fleet.sql().await;
    for text in [
        "INSERT INTO campaigns (id, tenant_id, name) VALUES ('c1', 'acme', $1)",
        "INSERT INTO jobs (id, tenant_id, campaign_id, job_type, title, status, error_message, current_item)
           VALUES ('j1', 'acme', 'c1', $1, $1, 'failed', $1, $1)",
        "INSERT INTO jobs (id, tenant_id, job_type, title, status) VALUES ('j2', 'acme', 'x', $1, 'pending')",
        "INSERT INTO failed_items (tenant_id, job_id, run, item, error) VALUES ('acme', 'j1', 1, $1, $1)",
    ] {
        sqlx::query(text).bind(EVIL).execute(&sql).await.expect(text);
    }
    let scheduled = said(ann(&fleet, gateway, &["job", "cancel", "j2", "--in", "1h", "--reason", EVIL]));
    assert_eq!(scheduled.2, Some(0), "{scheduled:?}");
    // A worker brings it into the audit trail.
    fleet.worker();
    let mut audit = fleet.command(&["audit", "--follow", "--since", "1h"]);
    let mut audit = audit.stdout(Stdio::piped()).spawn().expect("start");
    let row = BufReader::new(audit.stdout.take().expect("piped")).lines().next().expect("a row").expect("text");
    let _ = (audit.kill(), audit.wait());
    assert!(row.contains("scheduled") && row.contains("\\u{1b}]52"), "{row}");
    for args in [
        &["job", "ls"][..],
        &["job", "show", "j1"],
        &["job", "show", "j1", "--follow"],
        &["job", "failed-items", "j1"],
        &["campaign", "ls"],
        &["campaign", "show", "c1"],
        &["schedule", "ls"],
        &["batch", "cancel", "--jobs", "j1", "--dry-run"],
        &["audit"],
    ] {
        let (out, err, _) = said(ann(&fleet, gateway, args));
        assert_harmless(&format!("{args:?}"), &(out + &err));
    }
    for args in [&["job", "show", "j1", "--json"][..], &["job", "ls", "--json"], &["schedule", "ls", "--json"]] {
        let (shown, _) = on_a_terminal(&ann(&fleet, gateway, args), "");
        assert_harmless(&format!("{args:?} on a terminal"), &shown);
        let (raw, _, _) = said(ann(&fleet, gateway, args));
        let (on_terminal, piped): (Value, Value) =
            (serde_json::from_str(&shown).expect("JSON"), serde_json::from_str(&raw).expect("JSON"));
        assert_eq!(on_terminal, piped);
        assert!(raw.contains("\u{9b}2J\u{202e}"), "a script gets the bytes as they were: {raw:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_whole_and_on_a_terminal_have_a_header_types_and_times() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    let sql = fleet.sql().await;
    for n in 0..230 {
        let insert = "INSERT INTO jobs (id, tenant_id, job_type, title, status) VALUES ($1, 'acme', 'report', 'Monthly', 'running')";
        sqlx::query(insert).bind(format!("j{n}")).execute(&sql).await.expect("insert");
    }
    let (out, err, code) = said(ann(&fleet, gateway, &["job", "ls"]));
    let ids: std::collections::HashSet<&str> = out.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!((out.lines().count(), ids.len(), err.as_str(), code), (230, 230, "", Some(0)));
    let (out, err, code) = said(ann(&fleet, gateway, &["job", "ls", "--limit", "120"]));
    assert_eq!((out.lines().count(), code), (120, Some(0)));
    assert!(err.contains("there are more than these 120"), "{err}");
    let (out, err, _) = said(ann(&fleet, gateway, &["job", "ls", "--limit", "230"]));
    assert_eq!((out.lines().count(), err.as_str()), (230, ""));
    let (json, _, _) = said(ann(&fleet, gateway, &["job", "ls", "--json"]));
    let page: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((page["jobs"].as_array().map(Vec::len), page["next"].is_string()), (Some(50), true));

    let (shown, _) = on_a_terminal(&ann(&fleet, gateway, &["job", "ls", "--limit", "3"]), "");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("ID ") && lines[0].contains("TYPE") && lines[0].ends_with("TITLE"), "{shown}");
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!((words[0], words[1], words[3], words[6]), ("j229", "running", "report", "Monthly"), "{shown}");
    for time in [words[4], words[5]] {
        assert!(time.len() == 24 && time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_before_a_filter_cancels() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    fleet.worker();
    fleet.external_job("acme", "j1").await;
    fleet.external_job("acme", "j2").await;
    let cancel = |more: &[&str]| ann(&fleet, gateway, &[&["batch", "cancel"], more].concat());
    for filter in [&["--all"][..], &["--status", "running"]] {
        for answer in ["\n", "n\n", "what?\n"] {
            let (shown, code) = on_a_terminal(&cancel(filter), answer);
            assert!(shown.contains("cancel 2 jobs for good? [y/N]"), "{shown}");
            assert!(shown.contains("nothing was done") && code == Some(1), "{code:?}: {shown}");
        }
    }
    assert_eq!(fleet.status("acme", "j1").await, "running");
    let (shown, code) = on_a_terminal(&cancel(&["--all", "--dry-run"]), "");
    assert!(shown.contains("cancel would hit 2 of 2") && !shown.contains("[y/N]") && code == Some(0), "{shown}");
    let (shown, code) = on_a_terminal(&cancel(&["--jobs", "j1", "--wait"]), "");
    assert!(shown.contains("1 succeeded") && !shown.contains("[y/N]") && code == Some(0), "{shown}");
    let (shown, code) = on_a_terminal(&cancel(&["--all", "--wait"]), "y\n");
    assert!(shown.contains("cancel 1 job for good?") && shown.contains("1 succeeded") && code == Some(0), "{shown}");
    fleet.external_job("acme", "j3").await;
    let (shown, code) = on_a_terminal(&cancel(&["--all", "--yes", "--wait"]), "");
    assert!(shown.contains("1 succeeded") && !shown.contains("[y/N]") && code == Some(0), "{shown}");
    fleet.external_job("acme", "j4").await;
    let (out, _, code) = said(cancel(&["--all", "--wait"]));
    assert!(out.contains("1 succeeded") && code == Some(0), "a script is not asked: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_before_old_jobs_are_deleted() {
    let fleet = Fleet::new();
    let sql = fleet.sql().await;
    let put = "INSERT INTO jobs (id, tenant_id, status, completed_at) VALUES ('old', 'acme', 'completed', '2026-01-01T00:00:00.000Z')";
    sqlx::query(put).execute(&sql).await.expect("insert");
    let left = async || sqlx::query("SELECT id FROM jobs").fetch_all(&sql).await.expect("read").len();
    let prune = |more: &[&str]| fleet.command(&[&["job", "prune", "--older-than"], more].concat());
    let (shown, code) = on_a_terminal(&prune(&["30d"]), "n\n");
    assert!(shown.contains("delete 1 jobs and 0 campaigns of all tenants for good? [y/N]"), "{shown}");
    assert!(shown.contains("nothing was done") && code == Some(1), "{code:?}: {shown}");
    let (_, words, code) = said(prune(&["30"]));
    assert!(words.contains("30d for days") && code == Some(2), "seconds are not meant: {words}");
    assert_eq!(left().await, 1);
    let (shown, code) = on_a_terminal(&prune(&["30d"]), "y\n");
    assert!(shown.contains("1 jobs and 0 campaigns") && code == Some(0), "{code:?}: {shown}");
    assert_eq!(left().await, 0);
    let (shown, code) = on_a_terminal(&prune(&["30d", "--yes"]), "");
    assert!(!shown.contains("[y/N]") && code == Some(0), "{code:?}: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_without_a_terminal_reads_a_line_a_change() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    fleet.worker();
    fleet.external_job("acme", "j1").await;
    let mut follow = ann(&fleet, gateway, &["job", "show", "j1", "--follow"]);
    let mut follow = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    let mut lines = BufReader::new(follow.stderr.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!(next(), "wheelhouse: job j1 is running, 0%");
    let (_, _, code) = said(ann(&fleet, gateway, &["job", "pause", "j1", "--wait"]));
    assert_eq!(code, Some(0));
    while !next().starts_with("wheelhouse: job j1 is paused") {}
    said(ann(&fleet, gateway, &["job", "cancel", "j1", "--wait"]));
    let done = follow.wait_with_output().expect("wait");
    assert_eq!((String::from_utf8_lossy(&done.stdout).as_ref(), done.status.code()), ("job j1 cancelled\n", Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_permissions_that_mean_something_are_granted_and_all_are_listed() {
    let fleet = Fleet::new();
    let run = |args: &[&str]| said(fleet.command(args));
    for odd in ["jobs.fly", "job.cancel", "*.read", "jobs", ""] {
        for args in [
            &["grant", "--user", "ann", "jobs.read", odd][..],
            &["token", "--user", "ann", "--tenant", "acme", "--permissions", &format!("jobs.read,{odd}")],
        ] {
            let (_, err, code) = run(args);
            assert_eq!(code, Some(2), "{args:?}: {err}");
            assert!(err.contains("is no permission; there are jobs.read, ") && err.contains("audit.read"), "{err}");
        }
    }
    assert_eq!(run(&["grants"]).0, "", "nothing of it was granted");
    let (list, _, code) = run(&["grant", "--list"]);
    assert_eq!(code, Some(0));
    for permission in list.lines() {
        let (_, err, code) = run(&["grant", "--user", "ann", permission]);
        assert_eq!(code, Some(0), "{permission}: {err}");
    }
    assert!(["*", "jobs.*", "campaigns.cancel", "audit.read"].iter().all(|one| list.lines().any(|line| line == *one)));
    // As another system, or an older version, may have done it.
    fleet.permit("bob", "jobs.fly").await;
    let sql = fleet.sql().await;
    for text in [
        "INSERT INTO role_permissions (role_id, permission) VALUES ('night', 'jobs.pause')",
        "INSERT INTO user_roles (user_id, role_id) VALUES ('bob', 'night')",
    ] {
        sqlx::query(text).execute(&sql).await.expect("insert");
    }
    let (bob, _, _) = run(&["grants", "--user", "bob"]);
    assert_eq!(bob, "bob  jobs.fly  (unknown: it grants nothing)\nbob  jobs.pause  by role night\n");
    let (json, _, _) = run(&["grants", "--user", "bob", "--json"]);
    let first: Value = serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first, json!({"user_id": "bob", "permission": "jobs.fly", "tenant_id": null, "role": null}));
    assert_eq!(run(&["grants"]).0.lines().count(), list.lines().count() + 2);
    assert_eq!(run(&["revoke", "--user", "bob", "jobs.fly"]).2, Some(0), "what is odd can be taken away");
    assert_eq!(run(&["grants", "--user", "bob"]).0, "bob  jobs.pause  by role night\n");
}
