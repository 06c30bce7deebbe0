//! The Lua files, put together with the functions they share.

use std::sync::LazyLock;

use redis::Cmd;

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
    let mut call = redis::cmd(command);
    call.arg(script).arg(keys.len()).arg(keys).arg(args);
    call
}

const CLOCK: &str = include_str!("../../../lua/lib/clock.lua");
const FINISH: &str = include_str!("../../../lua/lib/finish.lua");

macro_rules! scripts {
    ($($name:ident = $file:literal with [$($library:ident),*];)*) => {
        $(
            #[doc = concat!("`lua/", $file, ".lua`")]
            pub static $name: LazyLock<LuaScript> = LazyLock::new(|| {
                LuaScript::new(&[$($library),*], include_str!(concat!("../../../lua/", $file, ".lua")))
            });
        )*
    };
}

scripts! {
    SUBMIT = "submit_command" with [CLOCK, FINISH];
    CLAIM = "claim_command" with [CLOCK];
    RENEW_CLAIM = "renew_claim" with [CLOCK];
    COMPLETE = "complete_command" with [CLOCK, FINISH];
    RETRY = "retry_command" with [CLOCK];
    DUE = "due" with [CLOCK];
    FILL_PERMISSIONS = "fill_permissions" with [];
    CHECK_PERMISSION = "check_permission" with [];
    RAISE_FLOOR = "raise_floor" with [CLOCK];
    OPEN_CONNECTION = "open_connection" with [CLOCK];
    RENEW_CONNECTIONS = "renew_connections" with [CLOCK];
    HEARTBEAT = "heartbeat" with [CLOCK];
    LIVE_WORKERS = "live_workers" with [CLOCK];
    RENEW_RUN = "renew_run" with [];
    END_RUN = "end_run" with [CLOCK];
    PUBLISH_UPDATE = "publish_update" with [];
}
