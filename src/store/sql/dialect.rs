//! What differs between the two databases' words: a text holds marks, and each database's own words replace them.
//! [`super`] lists them.

pub fn to_sqlite(text: &str) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    let text = text.replace("{lock}", "").replace("{skip}", "").replace("{share}", "");
    let text = text.replace("{now}", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')").replace("{like}", "LIKE");
    let text = text.replace("{now_ms}", "CAST((julianday('now') - 2440587.5) * 86400000 + 0.5 AS INTEGER)");
    replace_marks(&text, |value, kind| match kind {
        INDEX => format!("INDEXED BY {value}"),
        MS => format!("strftime('%Y-%m-%dT%H:%M:%fZ', {value})"),
        KEY => format!("COALESCE(strftime('%Y-%m-%dT%H:%M:%fZ', {value}), '')"),
        _ => value.to_owned(),
    })
}

pub fn to_postgres(text: &str) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    let text = text.replace("{lock}", "FOR UPDATE").replace("{skip}", "FOR UPDATE SKIP LOCKED");
    let text = text.replace("{share}", "FOR SHARE").replace("{now}", "now()").replace("{like}", "ILIKE");
    let text = text.replace("{now_ms}", "CAST(EXTRACT(EPOCH FROM now()) * 1000 AS BIGINT)");
    replace_marks(&text, |value, kind| match kind {
        INDEX => String::new(),
        KEY => format!("COALESCE({value}, TIMESTAMPTZ '-infinity')"),
        HIDE => format!("({value} || '')"),
        MS => value.trim_start_matches('+').to_owned(),
        _ => format!("CAST({value} AS {kind})"),
    })
}

/// What `{by:…}` names instead of a type.
const INDEX: &str = "INDEX";
/// What `{ms:…}` names instead of a type.
const MS: &str = "MS";
/// What `{key:…}` names instead of a type.
const KEY: &str = "KEY";

/// What `{hide:…}` names instead of a type.
const HIDE: &str = "HIDE";

/// A time to compare with `{ms:column}`: RFC 3339 with three decimals, always.
pub(in crate::store) fn time_text(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 {
        jiff::Timestamp::UNIX_EPOCH
    } else {
        jiff::Timestamp::MAX
    });
    format!("{time:.3}")
}

/// Replaces `{json:…}`, `{time:…}`, `{by:…}`, `{ms:…}`, `{key:…}` and `{hide:…}`.
fn replace_marks(text: &str, write: impl Fn(&str, &str) -> String) -> String {
    let mut out = text.to_owned();
    let marks = [
        ("{json:", "JSONB"),
        ("{time:", "TIMESTAMPTZ"),
        ("{by:", INDEX),
        ("{ms:", MS),
        ("{key:", KEY),
        ("{hide:", HIDE),
    ];
    for (mark, kind) in marks {
        while let Some(start) = out.find(mark) {
            let end = start + out[start..].find('}').unwrap_or(out.len() - start - 1);
            let value = write(&out[start + mark.len()..end], kind);
            out.replace_range(start..=end, &value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_the_words_of_each_database() {
        let text = "UPDATE t SET a = {json:$1}, b = {time:$2}, c = {now} WHERE d = $3 {lock}";
        assert_eq!(
            to_sqlite(text),
            "UPDATE t SET a = $1, b = $2, c = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE d = $3 "
        );
        assert_eq!(
            to_postgres(text),
            "UPDATE t SET a = CAST($1 AS JSONB), b = CAST($2 AS TIMESTAMPTZ), c = now() WHERE d = $3 FOR UPDATE"
        );
        assert_eq!(to_sqlite("{ms:at} < {time:$1}"), "strftime('%Y-%m-%dT%H:%M:%fZ', at) < $1");
        assert_eq!(to_sqlite("{ms:+at}"), "strftime('%Y-%m-%dT%H:%M:%fZ', +at)");
        assert_eq!(to_sqlite("{hide:status} = 'a'"), "status = 'a'");
        assert_eq!(to_postgres("{hide:status} = 'a'"), "(status || '') = 'a'");
        assert_eq!(to_postgres("{ms:+at} < {time:$1}"), "at < CAST($1 AS TIMESTAMPTZ)");
        assert_eq!(to_postgres("{ms:at} < {time:$1}"), "at < CAST($1 AS TIMESTAMPTZ)");
        assert_eq!(time_text(1_767_225_600_000), "2026-01-01T00:00:00.000Z");
    }
}
