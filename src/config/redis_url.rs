//! What `redis.url` may not say, although the client library would read it.

/// Refuses the number of a database other than 0. Keys lie in one database of a server, and pub/sub does not: it ignores
/// the number. Two deployments with different numbers on one Redis would hear each other, and the names of the channels
/// are a contract, so that they cannot be kept apart by name (`docs/decisions/0001-one-database-number.md`).
///
/// `Ok` for an address that is wrong in another way: who reads it says so. The error says what to do, and shows nothing
/// of the address but the number.
pub(crate) fn one_database(url: &str) -> Result<(), String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split('#').next().unwrap_or_default();
    let (rest, question) = rest.split_once('?').unwrap_or((rest, ""));
    // Sentinels: hosts, the master's name, the number. One server: host, the number. A cluster has no numbers at all.
    let place = if scheme.ends_with("+sentinel") { 2 } else { 1 };
    // Other programs write `?db=1`. To leave it unread would put two deployments into one and the same database.
    let asked = question.split('&').filter_map(|pair| pair.strip_prefix("db="));
    let asked = asked.map(|number| (number, format!("db={number}")));
    let named = rest.split('/').nth(place).map(|number| (number, format!("/{number}"))).into_iter().chain(asked);
    let mut numbers = named.filter_map(|(number, written)| Some((number.parse::<u64>().ok()?, written)));
    match numbers.find(|(number, _)| *number != 0) {
        None => Ok(()),
        Some((number, written)) => Err(format!(
            "names database {number}: leave {written} out. Redis's pub/sub ignores the number of the database, so that deployments which share a Redis would hear each other; give each deployment a Redis of its own (docs/decisions/0001-one-database-number.md)"
        )),
    }
}
