//! The texts that scripts write by themselves, as Lua functions in front of those scripts. What stands here comes from
//! `protocol`, where each text stands once.

use std::fmt::Write;

use crate::domain::{Action, ResourceKind};
use crate::protocol::{CommandError, server};

/// Errors with which a script may end a command, by the code that is stored.
const ERRORS: [(&str, CommandError); 3] = [
    ("superseded", CommandError::Superseded),
    ("expired", CommandError::Expired),
    ("permission_denied", CommandError::PermissionDenied),
];

/// Two functions for `lua/lib/stored_command.lua`. They are functions, so that their tables are made only where a script
/// ends a command. `failed_template(kind, has_request_id)`: `server::failed_template`. `error_message(code, kind, action)`:
/// the sentence.
pub(super) fn lua_functions() -> String {
    let mut lua = String::from("local function failed_template(kind, has_request_id)\n");
    for kind in ResourceKind::ALL {
        let [with, without] =
            [true, false].map(|has_request_id| quoted(&server::failed_template(kind, has_request_id)));
        let _ =
            writeln!(lua, "  if kind == '{}' then return has_request_id and {with} or {without} end", kind.as_str());
    }
    lua.push_str("end\nlocal function error_message(code, kind, action)\n  return ({\n");
    for (code, error) in ERRORS {
        for kind in ResourceKind::ALL {
            for action in Action::ALL {
                let message = quoted(&error.message(action, kind));
                let _ = writeln!(lua, "    ['{code} {} {}'] = {message},", kind.as_str(), action.as_str());
            }
        }
    }
    lua.push_str("  })[code .. ' ' .. kind .. ' ' .. action]\nend\n");
    lua
}

/// As Lua reads it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_that_scripts_write_into_json_needs_no_escaping_and_has_the_code_that_is_stored() {
        for (code, error) in ERRORS {
            let stored = serde_json::to_value(&error).expect("JSON");
            assert_eq!(stored, serde_json::json!({ "code": code }));
            for (action, kind) in
                Action::ALL.into_iter().zip([ResourceKind::Job, ResourceKind::Campaign].into_iter().cycle())
            {
                let message = error.message(action, kind).into_owned();
                assert_eq!(serde_json::to_string(&message).expect("JSON"), format!("\"{message}\""));
            }
        }
    }

    #[test]
    fn texts_are_quoted_for_lua() {
        assert_eq!(quoted("it's \"a\\b\"\n"), r#"'it\'s "a\\b"\n'"#);
    }
}
