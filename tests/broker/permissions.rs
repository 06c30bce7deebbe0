//! The permission cache against a model of it: every order of readers that are slow, changes in SQL, and their
//! invalidation. What matters: once a revoke has been invalidated, the right never stands again.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::support::redis::RedisServer;
use crate::{LIMITS, connect, submission};
use wheelhouse::broker::Broker;
use wheelhouse::broker::scripts::permissions::{FillOutcome, PermissionSet};
use wheelhouse::broker::scripts::submit::{Grant, SubmitLimits, SubmitOutcome};
use wheelhouse::domain::{Action, CommandId, Permission, Resource, ResourceKind, UserId};

#[derive(Debug, Clone)]
enum Step {
    /// SQL: the right is granted or revoked, and the version grows. Its invalidation comes later, or never.
    Change { held: bool },
    /// The oldest change that is not invalidated yet is, in every partition.
    Invalidate,
    /// A reader takes its snapshot of SQL…
    Read { reader: usize },
    /// …and fills the cache of a tenant with it, however late, perhaps twice.
    Fill { reader: usize, tenant: usize },
    /// Somebody asks, and sends a command.
    Ask { tenant: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(|held| Step::Change { held }),
        2 => Just(Step::Invalidate),
        3 => (0..3_usize).prop_map(|reader| Step::Read { reader }),
        4 => (0..3_usize, 0..2_usize).prop_map(|(reader, tenant)| Step::Fill { reader, tenant }),
        4 => (0..2_usize).prop_map(|tenant| Step::Ask { tenant }),
    ]
}

/// What the cache must hold.
struct Model {
    /// SQL: whether the right was held, by version.
    history: BTreeMap<i64, bool>,
    /// Changes whose invalidation has not come yet.
    pending: Vec<i64>,
    /// The newest version that was invalidated.
    floor: i64,
    snapshots: [Option<(i64, bool)>; 3],
    cached: [Option<(i64, bool)>; 2],
}

impl Model {
    fn current(&self) -> (i64, bool) {
        self.history.iter().next_back().map(|(version, held)| (*version, *held)).expect("at least one version")
    }
}

/// Two tenants whose keys lie in different partitions: a user's rights belong to both.
fn job_of(tenant: usize) -> Resource {
    Resource::parse(["acme:job:j1", "globex:job:j1"][tenant]).expect("resource")
}

async fn play(broker: &Broker, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let user: UserId = CommandId::generate().to_string().parse().expect("user");
    let mut model = Model {
        history: BTreeMap::from([(1, true)]),
        pending: Vec::new(),
        floor: 0,
        snapshots: [None; 3],
        cached: [None; 2],
    };
    let needed = Permission::of(ResourceKind::Job, "pause");
    for step in steps {
        match step {
            Step::Change { held } => {
                let version = model.current().0 + 1;
                model.history.insert(version, held);
                model.pending.push(version);
            }
            Step::Invalidate if model.pending.is_empty() => {}
            Step::Invalidate => {
                let version = model.pending.remove(0);
                broker.invalidate_permissions(&user, version).await.expect("invalidate");
                model.floor = model.floor.max(version);
            }
            Step::Read { reader } => model.snapshots[reader] = Some(model.current()),
            Step::Fill { reader, tenant } => {
                let Some((version, held)) = model.snapshots[reader] else { continue };
                let held_text = if held { vec!["jobs.*".to_owned()] } else { Vec::new() };
                let set = PermissionSet { version, held: held_text };
                let ttl = Duration::from_secs(60);
                let filled = broker.fill_permissions(&job_of(tenant).tenant, &user, &set, ttl).await.expect("fill");
                let newest = model.cached[tenant].map_or(0, |(cached, _)| cached).max(model.floor);
                prop_assert_eq!(filled == FillOutcome::Stored, version >= newest);
                if version >= newest {
                    model.cached[tenant] = Some((version, held));
                }
            }
            Step::Ask { tenant } => {
                let resource = job_of(tenant);
                let said = broker.check_permission(&resource.tenant, &user, &needed).await.expect("check");
                let believed = model.cached[tenant].filter(|(version, _)| *version >= model.floor);
                prop_assert_eq!(said, believed.map(|(_, held)| held));
                let since_floor = model.history.range(model.floor..);
                let may_stand = since_floor.into_iter().any(|(_, held)| *held);
                let stands = said == Some(true);
                prop_assert!(may_stand || !stands, "a revoked right stands");
                let asked = submission_of(&user, resource);
                let limits = SubmitLimits {
                    commands_per_minute: 100_000,
                    backlog_per_tenant: 1_000_000,
                    schedules_per_tenant: 1,
                };
                let outcome = broker.submit(&asked, limits).await.expect("submit");
                match said {
                    None => prop_assert_eq!(outcome, SubmitOutcome::PermissionsUnknown),
                    Some(false) => prop_assert_eq!(outcome, SubmitOutcome::Denied),
                    Some(true) => {
                        let accepted = matches!(outcome, SubmitOutcome::Accepted { .. });
                        prop_assert!(accepted, "{:?}", outcome);
                    }
                }
            }
        }
    }
    Ok(())
}

fn submission_of(user: &UserId, resource: Resource) -> wheelhouse::broker::scripts::submit::Submission {
    let mut asked = submission("j1", Action::Pause);
    asked.user = user.clone();
    asked.resource = resource;
    asked.grant = Grant::Database;
    asked
}

#[test]
fn in_no_order_of_slow_readers_and_changes_does_a_revoked_right_stand_again() {
    let redis = RedisServer::start();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let broker = runtime.block_on(connect(&redis));
    let partitions = [0, 1].map(|tenant| broker.keys().partition(&job_of(tenant).tenant));
    assert_ne!(partitions[0], partitions[1], "choose other names: the test is about two partitions");
    let config = ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..60))| {
        runtime.block_on(play(&broker, steps))?;
    });
}

#[tokio::test]
async fn a_row_that_bears_the_name_of_the_version_cannot_stand_in_its_place() {
    let redis = RedisServer::start();
    let broker = connect(&redis).await;
    let asked = submission_of(&"ann".parse().expect("user"), job_of(0));
    let set = PermissionSet { version: 7, held: vec!["@version".to_owned(), "jobs.pause".to_owned()] };
    let ttl = Duration::from_secs(60);
    broker.fill_permissions(&asked.resource.tenant, &asked.user, &set, ttl).await.expect("fill");
    broker.invalidate_permissions(&asked.user, 7).await.expect("invalidate");
    let outcome = broker.submit(&asked, LIMITS).await.expect("submit");
    assert!(matches!(outcome, SubmitOutcome::Accepted { .. }), "{outcome:?}");
}
