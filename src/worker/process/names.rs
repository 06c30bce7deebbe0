//! Processes in words, for the people who have to do something about them.

use super::proc_table::ProcessEntry;

/// Longest list of processes in one sentence.
const MAX_NAMED: usize = 5;

/// `process 812 (sleep) of user root`. Without its arguments, which may hold secrets.
pub(super) fn process(entry: &ProcessEntry) -> String {
    let name = std::fs::read(format!("/proc/{}/comm", entry.pid)).unwrap_or_default();
    let name: String = String::from_utf8_lossy(&name).trim_end().chars().filter(|c| !c.is_control()).collect();
    let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
    let status = std::fs::read_to_string(format!("/proc/{}/status", entry.pid)).unwrap_or_default();
    let user = owner(&status).map(|id| format!(" of user {}", user_name(id).unwrap_or_else(|| id.to_string())));
    format!("process {}{name}{}", entry.pid, user.unwrap_or_default())
}

/// `process 812 (sleep) of user root, process 813 (cp) of user root and 4 more`.
pub(super) fn list(all: &[String]) -> String {
    let named = all.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// The effective user in a `status` file.
fn owner(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn user_name(id: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_with_its_program_and_its_user() {
        let own =
            super::super::proc_table::entry(i32::try_from(std::process::id()).expect("pid")).expect("this process");
        let message = process(&own);
        assert!(message.starts_with(&format!("process {} (", own.pid)) && message.contains(" of user "), "{message}");
        assert_eq!(owner("Name:\tsu\nUid:\t1000\t0\t0\t0\n"), Some(0), "the effective one");
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let all: Vec<String> = (1..=7).map(|n| format!("process {n}")).collect();
        assert_eq!(list(&all[..2]), "process 1, process 2");
        assert!(list(&all).ends_with("process 5 and 2 more"));
    }
}
