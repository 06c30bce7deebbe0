//! Which fault happens when.

use std::time::Duration;

use fastrand::Rng;

use crate::plan::{Act, Database, GATEWAYS, Line, Process, Topology, WORKERS, Whose};

/// Time at the start without faults, so that everyone is there.
const CALM: Duration = Duration::from_secs(2);

/// What breaks and what mends it, by time.
pub fn draw(rng: &mut Rng, load: Duration, database: Database, topology: Topology) -> Vec<(Duration, Act)> {
    match topology {
        Topology::Single => {}
        Topology::Sentinel | Topology::Cluster => return draw_switches(rng, load, topology),
        Topology::Disk => return draw_losses_of_power(rng, load, database),
    }
    let mut acts = Vec::new();
    let mut at = CALM;
    // The first round has one of each kind, in some order; after it they come as they come.
    let mut kinds: Vec<u8> = (0..KINDS).collect();
    rng.shuffle(&mut kinds);
    while at < load {
        let kind = kinds.pop().unwrap_or_else(|| rng.u8(..KINDS));
        acts.extend(fault(rng, kind, database).into_iter().map(|(after, act)| (at + after, act)));
        // Dense enough that the first round is over within 40 s.
        at += Duration::from_millis(rng.u64(1_000..2_500));
    }
    acts.extend(rights(rng, load));
    acts.sort_by_key(|(at, _)| *at);
    acts
}

/// Every way for a master to be replaced, one after the other: each has the time to be over before the next begins.
fn draw_switches(rng: &mut Rng, load: Duration, topology: Topology) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    let mut at = CALM;
    let mut kinds: Vec<u8> = Vec::new();
    while at < load {
        if kinds.is_empty() {
            kinds = (0..if topology == Topology::Cluster { 7 } else { 5 }).collect();
            rng.shuffle(&mut kinds);
        }
        let ms = |rng: &mut Rng, from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
        let worker = Process::Worker(rng.usize(..WORKERS));
        // A master is missed after one second, in a cluster after one and a half.
        let missed = ms(rng, 3_000, 6_000);
        let whose = if topology == Topology::Cluster && rng.u8(..4) == 0 { Whose::Others } else { Whose::Tenants };
        let fault = match kinds.pop().unwrap_or_default() {
            0 => vec![(Duration::ZERO, Act::RedisDown(whose)), (missed, Act::RedisUp)],
            1 => vec![(Duration::ZERO, Act::RedisHangs(whose)), (missed, Act::RedisGoesOn)],
            2 => vec![(Duration::ZERO, Act::Switch(whose))],
            3 => vec![(Duration::ZERO, Act::SplitBrain(whose)), (missed, Act::SplitEnds)],
            4 => vec![(Duration::ZERO, Act::Kill(worker)), (missed, Act::Start(worker))],
            5 => vec![(Duration::ZERO, Act::ShardDown(whose)), (missed, Act::RedisUp)],
            _ => vec![(Duration::ZERO, Act::MoveSlot)],
        };
        acts.extend(fault.into_iter().map(|(after, act)| (at + after, act)));
        at += Duration::from_millis(rng.u64(6_500..8_500));
    }
    acts.sort_by_key(|(at, _)| *at);
    acts
}

/// Every second fault is one of the disk, the first of them a loss of power; between them come those of one Redis.
fn draw_losses_of_power(rng: &mut Rng, load: Duration, database: Database) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    let (mut at, mut kinds) = (CALM, vec![0]);
    while at < load {
        if kinds.is_empty() {
            kinds = (0..4).collect();
            rng.shuffle(&mut kinds);
        }
        let mut ms = |from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
        let (off, stalled) = (ms(0, 1_500), ms(100, 3_000));
        let fault_of_disk = match kinds.pop().unwrap_or_default() {
            0 | 1 => vec![(Duration::ZERO, Act::PowerLoss), (off, Act::RedisUp)],
            // What waits for the disk meanwhile is lost, and nobody was told of it.
            2 => vec![
                (Duration::ZERO, Act::DiskStalls),
                (stalled, Act::PowerLoss),
                (stalled, Act::DiskGoesOn),
                (stalled + off, Act::RedisUp),
            ],
            // Also for so long that a gateway has to notice.
            _ => vec![(Duration::ZERO, Act::DiskStalls), (2 * stalled, Act::DiskGoesOn)],
        };
        acts.extend(fault_of_disk.into_iter().map(|(after, act)| (at + after, act)));
        at += ms(1_500, 4_000);
        let kind = rng.u8(..KINDS);
        acts.extend(fault(rng, kind, database).into_iter().map(|(after, act)| (at + after, act)));
        at += Duration::from_millis(rng.u64(1_500..4_000));
    }
    acts.extend(rights(rng, load));
    acts.sort_by_key(|(at, _)| *at);
    acts
}

/// One user's right goes and comes back, about as often as a scheduled command waits.
fn rights(rng: &mut Rng, load: Duration) -> Vec<(Duration, Act)> {
    let (mut acts, mut at, mut held) = (Vec::new(), Duration::from_millis(rng.u64(4_000..8_000)), false);
    while at < load {
        acts.push((at, Act::Rights { held }));
        held = !held;
        // Every third time long enough that nothing of before may count any more.
        let long = acts.len() % 3 == 0;
        at += Duration::from_millis(if long { rng.u64(17_000..20_000) } else { rng.u64(4_000..8_000) });
    }
    acts
}

const KINDS: u8 = 16;

/// One fault: what happens how long after its beginning.
fn fault(rng: &mut Rng, kind: u8, database: Database) -> Vec<(Duration, Act)> {
    let worker = Process::Worker(rng.usize(..WORKERS));
    let gateway = Process::Gateway(rng.usize(..GATEWAYS));
    let run = Process::Run(rng.usize(..2));
    let mut ms = |from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
    let (moment, any, caught) = (ms(0, 1_500), ms(200, 4_000), ms(200, 800));
    // A lease lasts 2 s here, a heartbeat 4, and a host is given up after 3.5 more.
    let (past_lease, past_life, unlocked) = (ms(2_200, 6_000), ms(7_500, 11_000), ms(2_000, 4_000));
    let line = [Line::Hold, Line::Swallow, Line::Cut][rng.usize(..3)];
    let program = if rng.u8(..4) == 0 { run } else { worker };
    let process = match rng.u8(..10) {
        0..=3 => gateway,
        4..=8 => worker,
        _ => run,
    };
    let (n, listener) = (rng.usize(..GATEWAYS), rng.usize(..WORKERS));
    let lasting = |lasts, broken, mended| vec![(Duration::ZERO, broken), (lasts, mended)];
    match kind {
        0 => lasting(moment, Act::Kill(worker), Act::Start(worker)),
        1 => lasting(moment, Act::Kill(gateway), Act::Start(gateway)),
        2 => lasting(past_lease, Act::Stop(worker), Act::Continue(worker)),
        3 => lasting(past_life, Act::Stop(program), Act::Continue(program)),
        4 => lasting(any, Act::Stop(gateway), Act::Continue(gateway)),
        5 => lasting(any, Act::ToRedis(process, line), Act::ToRedis(process, Line::Pass)),
        6 => lasting(any, Act::ToGateway(n, line), Act::ToGateway(n, Line::Pass)),
        7 => lasting(moment, Act::RedisDown(Whose::Tenants), Act::RedisUp),
        8 => lasting(any, Act::RedisHangs(Whose::Tenants), Act::RedisGoesOn),
        // Workers hold commands that they cannot write: then one of them dies, or sleeps while others take over.
        9 => vec![
            (Duration::ZERO, Act::LockSql),
            (caught, Act::Kill(worker)),
            (caught + moment, Act::Start(worker)),
            (unlocked, Act::UnlockSql),
        ],
        10 | 11 => vec![
            (Duration::ZERO, Act::LockSql),
            (caught, Act::Stop(worker)),
            (unlocked, Act::UnlockSql),
            (unlocked + past_lease, Act::Continue(worker)),
        ],
        12 => lasting(past_life, Act::ToListener(listener, line), Act::ToListener(listener, Line::Pass)),
        13 if database == Database::Postgres => vec![(Duration::ZERO, Act::EndSqlConnections)],
        14 if database == Database::Postgres => {
            lasting(any, Act::ToSql(process, line), Act::ToSql(process, Line::Pass))
        }
        _ => lasting(any + moment + moment, Act::LockSql, Act::UnlockSql),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_is_lost_early_and_comes_back() {
        for seed in 0..20 {
            let faults = draw(&mut Rng::with_seed(seed), Duration::from_secs(8), Database::Sqlite, Topology::Disk);
            let losses = faults.iter().filter(|(_, act)| *act == Act::PowerLoss).count();
            let first = faults.iter().position(|(_, act)| *act == Act::PowerLoss).expect("a loss of power");
            assert!(faults[first].0 < Duration::from_secs(5), "{faults:?}");
            assert!(faults[first..].iter().filter(|(_, act)| *act == Act::RedisUp).count() >= losses);
        }
    }
}
