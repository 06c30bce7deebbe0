//! The Lua files, put together with the functions they share.

use std::sync::LazyLock;

use redis::Cmd;

use super::messages;
use crate::broker::keys::WORKER_CHANNELS;
use crate::config::PublishedChannels;

/// One script: its text and its hash, for each way to publish.
pub struct LuaScript([ScriptText; 3]);

struct ScriptText {
    text: String,
    hash: String,
}

impl LuaScript {
    fn new(libraries: &[&str], body: &str) -> Self {
        let body = body.strip_prefix("#!lua\n").unwrap_or(body);
        Self(PublishedChannels::ALL.map(|(word, _)| {
            let publishes = libraries.contains(&PUBLISH);
            let channels = if publishes { format!("local PUBLISHED_CHANNELS = '{word}'\n") } else { String::new() };
            let text = format!("#!lua\n{channels}{}\n{body}", libraries.join("\n"));
            let hash = redis::Script::new(&text).get_hash().to_owned();
            ScriptText { text, hash }
        }))
    }

    fn of(&self, published: PublishedChannels) -> &ScriptText {
        let Self([plain, both, sharded]) = self;
        match published {
            PublishedChannels::Plain => plain,
            PublishedChannels::Both => both,
            PublishedChannels::Sharded => sharded,
        }
    }

    /// Its whole text, as Redis gets it from a program that publishes there.
    pub fn text(&self, published: PublishedChannels) -> &str {
        &self.of(published).text
    }

    /// The name by which Redis knows that text.
    pub fn hash(&self, published: PublishedChannels) -> &str {
        &self.of(published).hash
    }

    /// The call for a server that knows it.
    pub(crate) fn by_hash(&self, published: PublishedChannels, keys: &[&str], args: &[&[u8]]) -> Cmd {
        call("EVALSHA", self.hash(published), keys, args)
    }

    /// The call for a server that does not, and will from then on.
    pub(crate) fn in_full(&self, published: PublishedChannels, keys: &[&str], args: &[&[u8]]) -> Cmd {
        call("EVAL", self.text(published), keys, args)
    }
}

fn call(command: &str, script: &str, keys: &[&str], args: &[&[u8]]) -> Cmd {
    let bytes = keys.iter().map(|key| key.len()).sum::<usize>() + args.iter().map(|arg| arg.len()).sum::<usize>();
    let mut call = Cmd::with_capacity(keys.len() + args.len() + 3, bytes + script.len() + 32);
    call.arg(command).arg(script).arg(keys.len()).arg(keys).arg(args);
    call
}

const CLOCK: &str = include_str!("../../../lua/lib/clock.lua");
const COMMAND_KEYS: &str = include_str!("../../../lua/lib/command_keys.lua");
const PUBLISH: &str = include_str!("../../../lua/lib/publish.lua");
const READY: &str = include_str!("../../../lua/lib/ready.lua");
const UPDATE: &str = include_str!("../../../lua/lib/update.lua");
const STORED_COMMAND: &str = include_str!("../../../lua/lib/stored_command.lua");
const FORMER: &str = include_str!("../../../lua/lib/former.lua");
const RECORD: &str = include_str!("../../../lua/lib/record.lua");
const HOSTS: &str = include_str!("../../../lua/lib/hosts.lua");
const FINISH: &str = include_str!("../../../lua/lib/finish.lua");
const ACCEPT: &str = include_str!("../../../lua/lib/accept.lua");
const PERMISSION: &str = include_str!("../../../lua/lib/permission.lua");
const BUDGET: &str = include_str!("../../../lua/lib/budget.lua");
const REQUESTS: &str = include_str!("../../../lua/lib/requests.lua");
const FORMER_REQUESTS: &str = include_str!("../../../lua/lib/former_requests.lua");
const REFUSALS: &str = include_str!("../../../lua/lib/refusals.lua");
const ANSWER_OF: &str = include_str!("../../../lua/lib/answer_of.lua");
const SEATS: &str = include_str!("../../../lua/lib/seats.lua");

/// Not a file: names of channels come from `keys`.
static WORKER_CHANNEL: LazyLock<String> =
    LazyLock::new(|| format!("local function worker_channel(worker) return '{WORKER_CHANNELS}' .. worker end"));

/// `body` with all that reads records, for [`super::fuzzing`].
pub(super) fn with_readers(body: &str) -> LuaScript {
    LuaScript::new(&[CLOCK, FORMER, RECORD, &MESSAGES, STORED_COMMAND, REFUSALS, REQUESTS, FORMER_REQUESTS], body)
}

/// Not a file: what scripts say in words comes from `protocol`.
static MESSAGES: LazyLock<String> = LazyLock::new(messages::lua_functions);

macro_rules! scripts {
    ($($name:ident = $file:literal with [$($library:ident),*];)*) => {
        $(
            #[doc = concat!("`lua/", $file, ".lua`")]
            pub static $name: LazyLock<LuaScript> = LazyLock::new(|| {
                LuaScript::new(&[$(&$library),*], include_str!(concat!("../../../lua/", $file, ".lua")))
            });
        )*
    };
}

scripts! {
    ANNOUNCE_CHANNELS = "announce_channels" with [CLOCK];
    SUBMIT = "submit_command" with [CLOCK, PUBLISH, COMMAND_KEYS, PERMISSION, BUDGET, READY, HOSTS, FORMER, RECORD, MESSAGES, STORED_COMMAND, FINISH, WORKER_CHANNEL, SEATS, ACCEPT, REFUSALS, REQUESTS, FORMER_REQUESTS];
    SUBMIT_BATCH = "submit_batch" with [CLOCK, PUBLISH, COMMAND_KEYS, PERMISSION, BUDGET, READY, HOSTS, FORMER, RECORD, MESSAGES, STORED_COMMAND, FINISH, WORKER_CHANNEL, SEATS, ACCEPT, REFUSALS];
    CLAIM = "claim_command" with [CLOCK, PUBLISH, READY, WORKER_CHANNEL, SEATS, FORMER, RECORD, MESSAGES, STORED_COMMAND];
    RENEW_CLAIM = "renew_claim" with [CLOCK, READY];
    COMPLETE = "complete_command" with [CLOCK, PUBLISH, COMMAND_KEYS, READY, UPDATE, FORMER, RECORD, FINISH];
    EXPIRE = "expire_commands" with [CLOCK, PUBLISH, COMMAND_KEYS, READY, HOSTS, FORMER, RECORD, MESSAGES, STORED_COMMAND, FINISH];
    WRITE_REFUSALS = "write_refusals" with [CLOCK, RECORD, REFUSALS];
    RETRY = "retry_command" with [CLOCK, READY];
    READY_RESOURCES = "ready_resources" with [CLOCK];
    DUE_SCHEDULES = "due_schedules" with [CLOCK];
    WITHDRAW_SCHEDULE = "withdraw_schedule" with [CLOCK, RECORD, REQUESTS];
    DELETE_FAILED = "delete_failed" with [];
    FILL_PERMISSIONS = "fill_permissions" with [CLOCK];
    CHECK_PERMISSION = "check_permission" with [CLOCK, PERMISSION];
    INVALIDATE_PERMISSIONS = "invalidate_permissions" with [CLOCK];
    OPEN_CONNECTION = "open_connection" with [CLOCK];
    RENEW_CONNECTIONS = "renew_connections" with [CLOCK];
    HEARTBEAT = "heartbeat" with [CLOCK, PUBLISH, WORKER_CHANNEL, SEATS];
    COUNT_WORKER = "count_worker" with [CLOCK, PUBLISH, WORKER_CHANNEL, SEATS];
    LEAD_PARTITION = "lead_partition" with [CLOCK];
    LIVE_WORKERS = "live_workers" with [CLOCK];
    UPDATE_RUNS = "update_runs" with [CLOCK, PUBLISH, ANSWER_OF];
    END_RUNS = "end_runs" with [CLOCK, PUBLISH, READY, ANSWER_OF];
    PROVE_WRITES = "prove_writes" with [PUBLISH];
    PUBLISH_UPDATE = "publish_update" with [CLOCK, PUBLISH, UPDATE];
}
