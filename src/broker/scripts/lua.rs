//! The Lua files, put together with the functions they share.

use std::sync::LazyLock;

use redis::Cmd;

use super::messages;
use crate::broker::keys::WORKER_CHANNELS;

/// One script: its text and its hash.
pub struct LuaScript {
    text: String,
    hash: String,
}

impl LuaScript {
    fn new(libraries: &[&str], body: &str) -> Self {
        let body = body.strip_prefix("#!lua\n").unwrap_or(body);
        let text = format!("#!lua\n{}\n{body}", libraries.join("\n"));
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// Its whole text, as Redis gets it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name by which Redis knows it.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The call for a server that knows it.
    pub(crate) fn by_hash(&self, keys: &[&str], args: &[&[u8]]) -> Cmd {
        call("EVALSHA", &self.hash, keys, args)
    }

    /// The call for a server that does not, and will from then on.
    pub(crate) fn in_full(&self, keys: &[&str], args: &[&[u8]]) -> Cmd {
        call("EVAL", &self.text, keys, args)
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
    SUBMIT = "submit_command" with [CLOCK, COMMAND_KEYS, PERMISSION, BUDGET, READY, HOSTS, FORMER, RECORD, MESSAGES, STORED_COMMAND, FINISH, WORKER_CHANNEL, SEATS, ACCEPT, REFUSALS, REQUESTS, FORMER_REQUESTS];
    SUBMIT_BATCH = "submit_batch" with [CLOCK, COMMAND_KEYS, PERMISSION, BUDGET, READY, HOSTS, FORMER, RECORD, MESSAGES, STORED_COMMAND, FINISH, WORKER_CHANNEL, SEATS, ACCEPT, REFUSALS];
    CLAIM = "claim_command" with [CLOCK, READY, WORKER_CHANNEL, SEATS, FORMER, RECORD, MESSAGES, STORED_COMMAND];
    RENEW_CLAIM = "renew_claim" with [CLOCK, READY];
    COMPLETE = "complete_command" with [CLOCK, COMMAND_KEYS, READY, UPDATE, FORMER, RECORD, FINISH];
    EXPIRE = "expire_commands" with [CLOCK, COMMAND_KEYS, READY, HOSTS, FORMER, RECORD, MESSAGES, STORED_COMMAND, FINISH];
    WRITE_REFUSALS = "write_refusals" with [CLOCK, RECORD, REFUSALS];
    RETRY = "retry_command" with [CLOCK, READY];
    READY_RESOURCES = "ready_resources" with [CLOCK];
    DUE_SCHEDULES = "due_schedules" with [CLOCK];
    WITHDRAW_SCHEDULE = "withdraw_schedule" with [CLOCK];
    DELETE_FAILED = "delete_failed" with [];
    FILL_PERMISSIONS = "fill_permissions" with [CLOCK];
    CHECK_PERMISSION = "check_permission" with [CLOCK, PERMISSION];
    INVALIDATE_PERMISSIONS = "invalidate_permissions" with [CLOCK];
    OPEN_CONNECTION = "open_connection" with [CLOCK];
    RENEW_CONNECTIONS = "renew_connections" with [CLOCK];
    HEARTBEAT = "heartbeat" with [CLOCK, WORKER_CHANNEL, SEATS];
    COUNT_WORKER = "count_worker" with [CLOCK, WORKER_CHANNEL, SEATS];
    LEAD_PARTITION = "lead_partition" with [CLOCK];
    LIVE_WORKERS = "live_workers" with [CLOCK];
    UPDATE_RUNS = "update_runs" with [CLOCK, ANSWER_OF];
    END_RUNS = "end_runs" with [CLOCK, READY, ANSWER_OF];
    PROVE_WRITES = "prove_writes" with [];
    PUBLISH_UPDATE = "publish_update" with [CLOCK, UPDATE];
}
