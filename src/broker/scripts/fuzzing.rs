//! One way in to every reader of what Redis stores, for `examples/fuzz.rs`: whatever stands in Redis, put there by another
//! version or by hand, a reader takes it or leaves it, and never ends the program.

use super::audit::entry;
use super::batch::StoredBatch;
use super::failed::FailedCommand;
use super::lua::{self, LuaScript};
use super::results::CommandResult;
use super::schedules::Scheduled;
use super::stored_command::StoredCommand;
use crate::broker::keys::{read_resource_channel, read_schedule_member};
use crate::domain::{CommandId, Resource, ResourceId, TenantId};

const COMMAND: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Reads a text as each of the records, and gives how many took it.
pub fn read_stored(text: &str) -> usize {
    let ids = (COMMAND.parse::<CommandId>(), "acme".parse::<TenantId>(), "j1".parse::<ResourceId>());
    let (Ok(command), Ok(tenant), Ok(id)) = ids else { return 0 };
    let resource = Resource::job(tenant, id);
    let stored = Some(text.to_owned());
    let audit = entry(("1-1".to_owned(), vec![("entry".to_owned(), text.to_owned())]));
    [
        StoredCommand::read(text).is_some_and(|stored| stored.resource().is_some()),
        Scheduled::read(command, text).is_some(),
        FailedCommand::read(command, text).is_some(),
        StoredBatch::read(text).is_some(),
        CommandResult::read(&(stored.clone(), None), command, &resource).is_some(),
        CommandResult::read(&(None, stored), command, &resource).is_some(),
        !audit.tenant_id.is_empty(),
        read_schedule_member(text).is_some(),
        read_resource_channel(text).is_some(),
        crate::protocol::control::resource_of(text, text).is_some(),
    ]
    .into_iter()
    .filter(|took| *took)
    .count()
}

/// A script that reads each of its arguments as everything that scripts read from Redis, as they read it, and says with which
/// the reading itself failed: `{}`, or its number and the error. KEYS: three hashes for requests.
pub fn reading_script() -> LuaScript {
    lua::with_readers(include_str!("fuzzing.lua"))
}
