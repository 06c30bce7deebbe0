//! Simulated foreign processes while workers are killed, asked to leave and started again, under commands: nothing moves
//! while it is said to stand, nothing is lost, and every command is answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::fixture::RemoteFixture;
use crate::support::foreign::{Process, Trace, faults_of};

const SESSIONS: usize = 3;
const JOBS_EACH: usize = 4;
const REATTACH: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn while_workers_die_and_leave_what_stands_stands_and_nothing_is_lost() {
    let mut fixture =
        RemoteFixture::start(&[("WORKER__REATTACH_SECONDS", "6"), ("LIMITS__COMMANDS_PER_MINUTE", "10000")]).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut workers = [fixture.worker(), fixture.worker()];
    let addresses: Vec<String> = workers.iter().map(|worker| worker.address.clone()).collect();
    let trace = Trace::default();
    let finish = CancellationToken::new();
    let mut processes = tokio::task::JoinSet::new();
    for n in 0..SESSIONS {
        let mut process = Process::new(&fixture.token, &format!("s{n}"), &addresses, REATTACH, &trace);
        process.finish = finish.clone();
        for m in 1..=JOBS_EACH {
            process.takes(&format!("j{n}-{m}"));
        }
        processes.spawn(process.run());
    }
    let ids: Vec<String> = (0..SESSIONS).flat_map(|n| (1..=JOBS_EACH).map(move |m| format!("j{n}-{m}"))).collect();
    for id in &ids {
        let begun = Instant::now();
        while !trace.has_begun(id) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{id} never began; log:\n{}", fixture.fleet.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    // Each job stands or runs as it was told last; what is in between is nobody's business.
    let mut stands: HashMap<String, Instant> = HashMap::new();
    let mut cancelled = Vec::new();
    for round in 0..6 {
        let victim = random.usize(..workers.len());
        let mut asked: Vec<(String, &str, String)> = Vec::new();
        for n in 0..3 {
            let id = ids[(round * 3 + n) % ids.len()].clone();
            if cancelled.contains(&id) {
                continue;
            }
            let since = stands.get(&id).copied();
            let action = match since {
                _ if random.u8(..5) == 0 => "cancel",
                Some(_) => "resume",
                None => "pause",
            };
            if let (Some(since), "resume") = (since, action) {
                check(&trace, &id, since, Instant::now());
                stands.remove(&id);
            }
            let command = fixture.command(action, &id);
            asked.push((id, action, command));
        }
        match round % 3 {
            0 => fixture.fleet.kill(workers[victim].handle),
            1 => {
                fixture.fleet.signal(workers[victim].handle, Signal::TERM);
                fixture.fleet.wait(workers[victim].handle);
            }
            _ => {}
        }
        for (id, action, command) in asked {
            let result = fixture.result_of(&id, &command).await;
            let answered = Instant::now();
            assert_eq!(result["type"], format!("{action}_succeeded"), "{id}: {result}");
            match action {
                "pause" => drop(stands.insert(id, answered)),
                "cancel" => {
                    stands.insert(id.clone(), answered);
                    cancelled.push(id);
                }
                _ => {}
            }
        }
        if round % 3 != 2 {
            let address = workers[victim].address.clone();
            workers[victim] = fixture.worker_at(&address);
        }
    }
    for (id, since) in &stands {
        check(&trace, id, *since, Instant::now());
    }
    for id in stands.keys().filter(|id| !cancelled.contains(id)) {
        let resume = fixture.command("resume", id);
        assert_eq!(fixture.result_of(id, &resume).await["type"], "resume_succeeded");
    }
    finish.cancel();
    for id in &ids {
        fixture.until_status(id, if cancelled.contains(id) { "cancelled" } else { "completed" }).await;
    }
    for id in &cancelled {
        check(&trace, id, stands[id], Instant::now());
    }
    let all = tokio::time::timeout(Duration::from_secs(30), async { while processes.join_next().await.is_some() {} });
    all.await.expect("every process hears how its jobs ended");
    let marks: Vec<_> = trace.marks().into_iter().map(|mark| (mark.job, mark.attempt, mark.deed)).collect();
    assert_eq!(faults_of(&marks), []);
}

/// No step between these moments.
fn check(trace: &Trace, id: &str, from: Instant, to: Instant) {
    let moved = trace.steps_between(id, from, to);
    assert_eq!(moved, 0, "{id} moved {moved} times while it was said to stand");
}
