//! The sliding window against a model of it, with a clock that the test holds.
//!
//! The script's text is taken as it is and the one function that reads Redis's clock is replaced by one that reads
//! the last argument. The text that the program runs has no such argument.

use proptest::prelude::*;
use redis::Connection;

use crate::job;
use crate::support::redis::RedisServer;
use wheelhouse::broker::Keys;
use wheelhouse::broker::scripts::lua;
use wheelhouse::config::PublishedChannels;
use wheelhouse::domain::{CommandId, UserId};

const WINDOW_US: u64 = 60_000_000;
const CLOCK: &str = "local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end";

/// `submit_command.lua` with its clock in the test's hand.
struct Limiter {
    connection: Connection,
    script: redis::Script,
}

/// One submission, as far as the limiter cares.
struct Call<'a> {
    user: &'a UserId,
    resource: usize,
    grant: &'a str,
    request: &'a str,
    limit: usize,
    now: u64,
}

impl Limiter {
    fn new(redis: &RedisServer) -> Self {
        let text = lua::SUBMIT.text(PublishedChannels::Plain);
        let replaced = text.replace(CLOCK, "local function now_us() return tonumber(ARGV[#ARGV]) end");
        assert!(!replaced.contains("'TIME'"), "the clock has changed: replace it here too");
        let client = redis::Client::open(redis.url()).expect("address");
        Self { connection: client.get_connection().expect("connect"), script: redis::Script::new(&replaced) }
    }

    /// The outcome's word, and the seconds of a `limited`.
    fn submit(&mut self, call: &Call) -> (String, u64) {
        let (keys, r) = (Keys::new(16), job(&format!("j{}", call.resource)));
        let partition = keys.partition(&r.tenant);
        let id = CommandId::generate();
        let command = id.to_string();
        let request =
            if call.request.is_empty() { keys.denial(&r, id) } else { keys.request(&r, call.user, call.request) };
        let mut run = self.script.prepare_invoke();
        for key in keys.command_keys(&r) {
            run.key(key);
        }
        for key in [
            keys.rate(&r.tenant, call.user),
            keys.permissions(&r.tenant, call.user),
            keys.min_permission_version(partition, call.user),
            keys.workers(partition),
            keys.tenant_workers(&r.tenant),
            request,
            keys.schedule(partition),
            keys.schedules(&r.tenant),
            keys.refusals(partition),
            keys.refusals_due(partition),
        ] {
            run.key(key);
        }
        let has_request = if call.request.is_empty() { "0" } else { "1" };
        let (limit, now) = (call.limit.to_string(), call.now.to_string());
        let (resource, record) = (r.to_string(), r#"{"action":"pause"}"#);
        for arg in [
            "0",
            &command,
            "digest",
            has_request,
            call.grant,
            "jobs.pause",
            "jobs.*",
            "*",
            &limit,
            "1000000",
            record,
            "control",
            "{}",
            &resource,
            "pause",
            "reply",
            "now",
            "0",
            "1000",
            "former digest",
            "acme:user",
            &now,
        ] {
            run.arg(arg);
        }
        let answer: Vec<String> = run.invoke(&mut self.connection).expect("the script runs");
        let seconds = if answer[0] == "limited" { answer[1].parse().expect("seconds") } else { 0 };
        (answer[0].clone(), seconds)
    }

    fn window(&mut self, user: &UserId) -> Vec<u64> {
        let key = Keys::new(16).rate(&job("x").tenant, user);
        redis::cmd("LRANGE").arg(key).arg(0).arg(-1).query(&mut self.connection).expect("list")
    }
}

/// What the contract says, in the plainest way: every use is kept for ever, and counted anew each time.
#[derive(Default)]
struct Model {
    uses: Vec<u64>,
}

impl Model {
    fn in_window(&self, now: u64) -> usize {
        self.uses.iter().filter(|used| now - **used < WINDOW_US).count()
    }

    /// `None`: allowed. Else the whole seconds after which one would be, found by trying each.
    fn refused(&self, now: u64, limit: usize) -> Option<u64> {
        (self.in_window(now) >= limit)
            .then(|| (1..=60).find(|s| self.in_window(now + s * 1_000_000) < limit).expect("within the window"))
    }
}

#[derive(Debug, Clone)]
enum Wait {
    /// So long.
    Micros(u64),
    /// Until the moment the oldest use that counts leaves the window, and so many µs more or less.
    Edge(i64),
}

fn wait() -> impl Strategy<Value = Wait> {
    prop_oneof![
        3 => Just(Wait::Micros(0)),
        1 => Just(Wait::Micros(1)),
        6 => (0..3_000_000_u64).prop_map(Wait::Micros),
        2 => (0..70_000_000_u64).prop_map(Wait::Micros),
        4 => (-1..=1_i64).prop_map(Wait::Edge),
    ]
}

/// Wait, which user, which resource, how it is granted, whether it repeats a request that was answered before.
type Step = (Wait, usize, usize, u8, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((wait(), 0..2_usize, 0..3_usize, 0..10_u8, prop::bool::weighted(0.15)), 1..80)
}

#[test]
fn the_window_never_lets_one_too_many_through_nor_refuses_one_too_few() {
    let redis = RedisServer::start();
    let limiter = std::cell::RefCell::new(Limiter::new(&redis));
    let config = ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(limit in prop_oneof![1..6_usize, Just(30)], steps in steps())| {
        let mut limiter = limiter.borrow_mut();
        // New names for each case: nothing of the one before counts.
        let users = [0, 1].map(|_| CommandId::generate().to_string().parse::<UserId>().expect("user"));
        let mut models = [Model::default(), Model::default()];
        let mut answered: [Option<(usize, String, String)>; 2] = [None, None];
        let mut now = 1_790_000_000_000_000_u64;
        for (number, (wait, who, resource, grant, repeat)) in steps.into_iter().enumerate() {
            let (user, model) = (&users[who], &mut models[who]);
            now = match wait {
                Wait::Micros(us) => now + us,
                Wait::Edge(off) => match model.uses.iter().rev().nth(limit - 1) {
                    Some(oldest) => now.max((oldest + WINDOW_US).saturating_add_signed(off)),
                    None => now,
                },
            };
            let before = limiter.window(user);
            if let (true, Some((resource, request, first))) = (repeat, &answered[who]) {
                let (outcome, _) = limiter.submit(&Call { user, resource: *resource, grant: "allowed", request, limit, now });
                prop_assert_eq!(&outcome, first, "a repeat gets the first answer");
                prop_assert_eq!(limiter.window(user), before, "a repeat uses no budget");
                continue;
            }
            let grant = match grant { 0 => "internal", 1..3 => "denied", _ => "allowed" };
            let request = if number % 2 == 0 { format!("r{number}") } else { String::new() };
            let (outcome, seconds) = limiter.submit(&Call { user, resource, grant, request: &request, limit, now });
            if grant == "internal" {
                prop_assert_eq!(outcome, "accepted");
                prop_assert_eq!(limiter.window(user), before, "what follows from another command uses no budget");
            } else if let Some(expected) = model.refused(now, limit) {
                prop_assert_eq!((outcome.as_str(), seconds), ("limited", expected));
                prop_assert_eq!(limiter.window(user), before, "a rejected command writes nothing");
            } else {
                prop_assert_eq!(&outcome, if grant == "denied" { "denied" } else { "accepted" });
                model.uses.push(now);
                let kept: Vec<u64> = model.uses.iter().rev().take(limit).copied().collect();
                prop_assert_eq!(limiter.window(user), kept);
                if !request.is_empty() {
                    let again = if grant == "denied" { "denied" } else { "repeated" };
                    answered[who] = Some((resource, request, again.to_owned()));
                }
            }
        }
    });
}

#[test]
fn the_list_outlives_the_window_so_that_no_use_is_forgotten_early() {
    let redis = RedisServer::start();
    let mut limiter = Limiter::new(&redis);
    let user: UserId = "ann".parse().expect("user");
    let call = Call { user: &user, resource: 0, grant: "allowed", request: "", limit: 30, now: 1_790_000_000_000_000 };
    assert_eq!(limiter.submit(&call).0, "accepted");
    let key = Keys::new(16).rate(&job("x").tenant, &user);
    let left: u64 = redis::cmd("PTTL").arg(key).query(&mut limiter.connection).expect("ttl");
    assert!((WINDOW_US / 1000..=WINDOW_US / 1000 + 1000).contains(&left), "{left} ms");
}
