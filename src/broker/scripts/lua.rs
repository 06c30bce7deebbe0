//! The Lua files, put together with the functions they share.

use std::sync::LazyLock;

use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind, aio::MultiplexedConnection};

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

    /// Runs it by hash; where Redis does not know it, loads it first.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        keys: &[&str],
        args: &[&[u8]],
    ) -> Result<T, RedisError> {
        let command = self.command(keys, args);
        match command.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                // Boxed: what hardly ever happens must not take up room in the future of every command.
                Box::pin(async {
                    let () = redis::cmd("SCRIPT").arg("LOAD").arg(&self.text).query_async(connection).await?;
                    command.query_async(connection).await
                })
                .await
            }
            answer => answer,
        }
    }

    fn command(&self, keys: &[&str], args: &[&[u8]]) -> redis::Cmd {
        let bytes = keys.iter().map(|key| key.len()).sum::<usize>() + args.iter().map(|arg| arg.len()).sum::<usize>();
        let mut command = redis::Cmd::with_capacity(keys.len() + args.len() + 3, bytes + 64);
        command.arg("EVALSHA");
        command.arg(&self.hash).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        for arg in args {
            command.arg(arg);
        }
        command
    }
}

const CLOCK: &str = include_str!("../../../lua/lib/clock.lua");
const COMMAND_KEYS: &str = include_str!("../../../lua/lib/command_keys.lua");
const READY: &str = include_str!("../../../lua/lib/ready.lua");
const FINISH: &str = include_str!("../../../lua/lib/finish.lua");
const ACCEPT: &str = include_str!("../../../lua/lib/accept.lua");
const PERMISSION: &str = include_str!("../../../lua/lib/permission.lua");
const BUDGET: &str = include_str!("../../../lua/lib/budget.lua");

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
    SUBMIT = "submit_command" with [CLOCK, COMMAND_KEYS, PERMISSION, BUDGET, READY, FINISH, ACCEPT];
    SUBMIT_BATCH = "submit_batch" with [CLOCK, COMMAND_KEYS, PERMISSION, BUDGET, READY, FINISH, ACCEPT];
    CLAIM = "claim_command" with [CLOCK, READY];
    RENEW_CLAIM = "renew_claim" with [CLOCK, READY];
    COMPLETE = "complete_command" with [CLOCK, COMMAND_KEYS, READY, FINISH];
    EXPIRE = "expire_commands" with [CLOCK, COMMAND_KEYS, FINISH];
    RETRY = "retry_command" with [CLOCK, READY];
    DUE = "due" with [CLOCK];
    DUE_SCHEDULES = "due_schedules" with [CLOCK];
    WITHDRAW_SCHEDULE = "withdraw_schedule" with [];
    DROP_FAILED = "drop_failed" with [];
    FILL_PERMISSIONS = "fill_permissions" with [];
    CHECK_PERMISSION = "check_permission" with [PERMISSION];
    RAISE_FLOOR = "raise_floor" with [CLOCK];
    OPEN_CONNECTION = "open_connection" with [CLOCK];
    RENEW_CONNECTIONS = "renew_connections" with [CLOCK];
    HEARTBEAT = "heartbeat" with [CLOCK];
    LIVE_WORKERS = "live_workers" with [CLOCK];
    RENEW_RUN = "renew_run" with [];
    END_RUN = "end_run" with [CLOCK, READY];
    PUBLISH_UPDATE = "publish_update" with [];
}
