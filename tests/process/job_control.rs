//! Parents that watch their children: a pause must not be news to them, or they go on with what comes next.

use std::time::Duration;

use wheelhouse::worker::process::ExitKind;
use wheelhouse::worker::{ControlOutcome, Controlled};

use super::{ProcessFixture, all_stand_still, program, send, size, state, until};

/// Twenty steps, as the argument of `bash -c`.
const STEPS: &str = "for i in $(seq 20); do sleep 0.2; echo $i >> $D/steps; done";

/// Runs a script in bash, pauses and resumes it again and again, and gives the lines that it has written.
async fn paused_and_resumed(script: &str) -> (ExitKind, String) {
    let folder = tempfile::tempdir().expect("folder");
    let mut program = program("bash", &["-c", script], Duration::from_secs(30));
    program.set.push(("D".into(), folder.path().into()));
    program.set.push(("STEPS".into(), STEPS.into()));
    program.set.push(("SHELL".into(), "/bin/bash".into()));
    let fixture = ProcessFixture::start(program, folder).await;
    let steps = fixture.file("steps");
    for at in [2, 5, 8] {
        fixture.numbers("steps", at).await;
        assert_eq!(fixture.process.pause().await, ControlOutcome::Done, "{script}");
        let before = size(&steps);
        // Longer than a step: nothing shows that nothing happens but time.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(size(&steps), before, "{script}");
        fixture.process.resume().await;
    }
    let how = fixture.process.ended().await.how;
    (how, std::fs::read_to_string(steps).expect("steps"))
}

fn all_steps() -> String {
    (1..=20).map(|n| format!("{n}\n")).collect::<String>() + "end\n"
}

async fn skips_nothing(script: &str) {
    assert_eq!(paused_and_resumed(script).await, (ExitKind::Exited(0), all_steps()));
}

#[tokio::test]
async fn a_shell_with_job_control_waits_for_its_child() {
    skips_nothing(r#"set -m; bash -c "$STEPS"; echo end >> $D/steps"#).await;
}

#[tokio::test]
async fn a_job_in_the_foreground_is_waited_for() {
    skips_nothing(r#"set -m; bash -c "$STEPS" & fg; echo end >> $D/steps"#).await;
}

#[tokio::test]
async fn a_job_in_the_background_is_waited_for() {
    skips_nothing(r#"set -m; bash -c "$STEPS" & wait; echo end >> $D/steps"#).await;
}

#[tokio::test]
async fn a_pipeline_is_waited_for() {
    skips_nothing(r#"set -m; bash -c "$STEPS" | cat; echo end >> $D/steps"#).await;
}

#[tokio::test]
async fn a_shell_that_ends_with_the_first_error_sees_none() {
    skips_nothing(r#"set -em; bash -c "$STEPS" && echo end >> $D/steps"#).await;
}

#[tokio::test]
async fn shells_with_job_control_within_each_other_wait() {
    skips_nothing(r#"bash -mc "bash -mc 'bash -mc \"\$STEPS\"; true'; true"; echo end >> $D/steps"#).await;
}

#[tokio::test]
async fn a_recorded_terminal_goes_on() {
    skips_nothing(r#"script -qec "bash -c '$STEPS'" /dev/null; echo end >> $D/steps"#).await;
}

#[tokio::test]
async fn a_recorded_terminal_under_job_control_goes_on() {
    skips_nothing(r#"set -m; script -qec "bash -mc '$STEPS'" /dev/null && echo end >> $D/steps"#).await;
}

#[tokio::test]
async fn a_program_with_a_time_limit_goes_on() {
    skips_nothing(r#"timeout 600 bash -c "$STEPS"; echo end >> $D/steps"#).await;
}

#[tokio::test]
async fn a_program_in_a_session_of_its_own_goes_on() {
    skips_nothing(r#"setsid -w bash -c "$STEPS"; echo end >> $D/steps"#).await;
}

#[tokio::test]
async fn resumed_means_that_every_process_has_been_seen_to_run() {
    let fixture = ProcessFixture::script(
        "script -qec 'echo $$ >> $D/pids; while :; do sleep 0.05; done' /dev/null & echo $! >> $D/pids; echo $$ >> $D/pids; wait",
    )
    .await;
    let pids = fixture.numbers("pids", 3).await;
    for _ in 0..10 {
        assert_eq!(fixture.process.pause().await, ControlOutcome::Done);
        all_stand_still(&pids).await;
        fixture.process.resume().await;
        assert!(!pids.iter().any(|pid| state(*pid) == Some('T')), "{pids:?}");
    }
    // And it stays so.
    until("none to stand", || !pids.iter().any(|pid| state(*pid) == Some('T'))).await;
}

#[tokio::test]
async fn a_stop_by_somebody_else_is_told_and_a_resume_ends_it() {
    use futures_util::StreamExt;
    let fixture =
        ProcessFixture::script("sh -c 'echo $$ >> $D/pids; while :; do echo x >> $D/turns; done' & wait").await;
    let pids = fixture.numbers("pids", 1).await;
    let mut hindrances = fixture.process.control_problem();
    for by_hand in [true, false] {
        send(pids[0], rustix::process::Signal::STOP);
        let words = hindrances.next().await.expect("it runs").expect("it is hindered");
        assert!(words.contains(&format!("process {} (sh)", pids[0])), "{words}");
        assert_eq!(state(pids[0]), Some('T'), "it is not continued unasked");
        if by_hand {
            send(pids[0], rustix::process::Signal::CONT);
        } else {
            fixture.process.resume().await;
            assert_ne!(state(pids[0]), Some('T'));
        }
        assert_eq!(hindrances.next().await, Some(None), "that is over");
    }
    fixture.process.kill();
    assert_eq!(hindrances.next().await, None);
}
