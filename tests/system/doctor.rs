//! `wheelhouse doctor`: each thing that it finds is caused here, and it says how to mend it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use crate::support::clock::Clock;
use crate::support::fleet::Fleet;
use crate::support::postgres;
use crate::support::redis::RedisServer;
use crate::support::roles::{self, Database, become_role};

/// What the doctor says: the exit code, and for each check its level, its message and the line that mends it.
struct Said {
    code: Option<i32>,
    findings: HashMap<String, Vec<(String, String, String)>>,
}

impl Said {
    fn of(command: &mut Command) -> Self {
        let ran = command.output().expect("run wheelhouse doctor");
        let out = String::from_utf8_lossy(&ran.stdout).into_owned();
        let said: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let mut findings: HashMap<String, Vec<_>> = HashMap::new();
        for finding in said["findings"].as_array().expect("findings") {
            let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
            let (level, mend) = (text("level"), text("mend"));
            assert_eq!(
                level == "ok",
                mend.is_empty(),
                "what is wrong comes with what mends it, and nothing else: {finding}"
            );
            findings.entry(text("check")).or_default().push((level, text("message"), mend));
        }
        assert!(!out.contains("hunter2"), "{out}");
        Self { code: ran.status.code(), findings }
    }

    fn level(&self, check: &str) -> &str {
        self.findings.get(check).map_or("not looked at", |found| found[0].0.as_str())
    }

    /// It was found so bad, in these words, with this in the line that mends it.
    #[track_caller]
    fn expect(&self, check: &str, level: &str, words: &str, mend: &str) {
        let found = self.findings.get(check).unwrap_or_else(|| panic!("{check} in {:?}", self.findings));
        let fits = |(l, w, m): &&(String, String, String)| l == level && w.contains(words) && m.contains(mend);
        assert!(found.iter().any(|one| fits(&one)), "{check} should be {level}, {words:?}, {mend:?}: {found:?}");
        assert_eq!(self.code, Some(i32::from(self.findings.values().flatten().any(|(level, ..)| level == "error"))));
    }
}

fn doctor(fleet: &Fleet, program: &str) -> Said {
    Said::of(&mut fleet.command(&["doctor", "--json", "--as", program]))
}

/// A doctor with one setting more.
fn with(fleet: &Fleet, setting: &str) -> Said {
    Said::of(fleet.command(&["doctor", "--json", "--set", setting]).env_remove(variable(setting)))
}

/// The variable of the same setting, which stands below a flag but may be wrong itself.
fn variable(setting: &str) -> String {
    let key = setting.split('=').next().unwrap_or_default();
    format!("WHEELHOUSE__{}", key.to_ascii_uppercase().replace('.', "__"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_settings_alone_show_is_found_and_said_to_people_and_at_the_start() {
    let mut fleet = Fleet::new();
    let said = doctor(&fleet, "gateway");
    said.expect("auth.audience", "warning", "another program", "auth.audience =");
    said.expect("auth.issuer", "warning", "whichever issuer", "auth.issuer =");
    for well in
        ["auth.hs256_secret", "auth.max_token_seconds", "server.tls", "redis.tls", "redis.version", "redis.append_only"]
    {
        assert_eq!(said.level(well), "ok", "{well}");
    }
    for well in ["redis.maxmemory_policy", "redis.clock", "redis.rights", "database.migrations", "system.open_files"] {
        assert_eq!(said.level(well), "ok", "{well}");
    }
    // What is for people, and what makes a warning count.
    let ran = fleet.command(&["doctor", "--strict"]).output().expect("run");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(text.contains("warning  auth.audience") && text.contains("→ auth.audience = "), "{text}");
    assert!(text.contains("0 errors, ") && ran.status.code() == Some(1), "{ran:?}");

    with(&fleet, "auth.hs256_secret=short").expect("settings", "error", "32 bytes or more", "the flag that sets");
    with(&fleet, &format!("auth.hs256_secret={}", "abc".repeat(20))).expect(
        "auth.hs256_secret",
        "warning",
        "3 different characters",
        "openssl rand",
    );
    with(&fleet, "auth.hs256_secret=").expect("auth.keys", "error", "no key", "HS256_SECRET");
    with(&fleet, "auth.max_token_seconds=0").expect("auth.max_token_seconds", "warning", "for ever", "= 7776000");
    with(&fleet, "auth.jwks_url=http://login.invalid/keys").expect(
        "auth.jwks_url",
        "warning",
        "without TLS",
        "https://",
    );
    with(&fleet, "auth.jwks_file=/none").expect("auth.jwks_file", "error", "/none", "auth.jwks_file names");
    with(&fleet, "server.listen=0.0.0.0:0").expect("server.tls", "warning", "unencrypted", "server.tls_cert_file");
    with(&fleet, "redis.url=redis://:hunter2@redis.invalid").expect("redis.tls", "warning", "unencrypted", "rediss://");
    for (mode, words) in [("prefer", "unencrypted"), ("disable", "unencrypted"), ("require", "anybody")] {
        let url = format!("database.url=postgres://ann:hunter2@db.invalid/w?sslmode={mode}");
        with(&fleet, &url).expect("database.tls", "warning", words, "sslmode=verify-full");
    }
    let verified = with(&fleet, "database.url=postgres://ann@db.invalid/w?sslmode=verify-full");
    assert_eq!(verified.level("database.tls"), "ok");
    verified.expect("database.connection", "error", "db.invalid", "database.url =");

    let own = fleet.command(&["doctor", "--json"]);
    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 256 && exec \"$@\"", "sh"]).arg(own.get_program()).args(own.get_args());
    few.current_dir(fleet.folder()).envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Said::of(&mut few).expect("system.open_files", "warning", "256", "LimitNOFILE=");

    // A gateway says the same of itself, unless it is for this machine alone.
    fleet.gateway();
    assert!(!fleet.log().contains("doctor.finding"), "{}", fleet.log());
    fleet.gateway_at("0.0.0.0:0");
    let log = fleet.log();
    let line = log.lines().find(|line| line.contains("doctor.finding") && line.contains("auth.audience"));
    assert!(line.expect("a warning").contains("\"level\":\"WARN\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_worker_could_read_are_counted_and_one_is_named() {
    let fleet = Fleet::new();
    let check = "database.quarantined_rows";
    assert_eq!(doctor(&fleet, "worker").level(check), "ok");
    let sql = fleet.sql().await;
    let text = "INSERT INTO jobs (id, tenant_id, status, error_message, completed_at) VALUES
                  ('no:1', 'acme', 'failed', 'The row cannot be read: an id that is none', strftime('%Y-%m-%dT%H:%M:%fZ', 'now', $1))";
    sqlx::query(text).bind("-2 days").execute(&sql).await.expect("insert");
    assert_eq!(doctor(&fleet, "worker").level(check), "ok", "it was before yesterday");
    sqlx::query(sqlx::AssertSqlSafe(text.replace("no:1", "no:2")))
        .bind("-2 hours")
        .execute(&sql)
        .await
        .expect("insert");
    let said = doctor(&fleet, "worker");
    said.expect(check, "warning", "1 row of jobs has failed", "SELECT tenant_id, id, error_message FROM jobs");
    said.expect(
        check,
        "warning",
        "the tenant \"acme\" and the id \"no:2\": an id that is none",
        "write these jobs again",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_redis_is_found() {
    let clock = Clock::new();
    let mut fleet = Fleet::on(RedisServer::start_on(&clock));
    for (breaks, mends, check, words, mend) in [
        (
            "CONFIG SET maxmemory-policy allkeys-lru",
            "CONFIG SET maxmemory-policy noeviction",
            "redis.maxmemory_policy",
            "allkeys-lru",
            "noeviction",
        ),
        (
            "CONFIG SET appendonly no",
            "CONFIG SET appendonly yes",
            "redis.append_only",
            "loses accepted commands",
            "appendonly yes",
        ),
        (
            "CONFIG SET min-replicas-to-write 1",
            "CONFIG SET min-replicas-to-write 0",
            "redis.writes",
            "NOREPLICAS",
            "min-replicas-to-write 0",
        ),
        (
            "ACL SETUSER default -evalsha -eval",
            "ACL SETUSER default +@all",
            "redis.rights",
            "EVAL",
            "ACL SETUSER default +eval",
        ),
        ("ACL SETUSER default -info", "ACL SETUSER default +@all", "redis.rights", "INFO", "+info"),
        (
            "ACL SETUSER default -xadd",
            "ACL SETUSER default +@all",
            "redis.rights",
            "may not do what a gateway does",
            "users.acl",
        ),
        ("ACL SETUSER default resetkeys ~other:*", "ACL SETUSER default allkeys", "redis.rights", "EVAL", "~wh:*"),
        (
            "ACL SETUSER default resetchannels &wh:*",
            "ACL SETUSER default allchannels",
            "redis.rights",
            "PSUBSCRIBE",
            "&*",
        ),
    ] {
        fleet.redis.inline(breaks);
        doctor(&fleet, "gateway").expect(check, "error", words, mend);
        fleet.redis.inline(mends);
        assert_eq!(doctor(&fleet, "gateway").level(check), "ok", "{mends}");
    }
    doctor(&fleet, "gateway").expect("redis.needless_rights", "warning", "CONFIG", "deploy/redis/users.acl");
    clock.set(3600);
    doctor(&fleet, "gateway").expect("redis.clock", "error", "3600.0 s ahead", "set-ntp");
    clock.set(0);
    fleet.redis.inline("ACL SETUSER default on >hunter2 resetpass >other");
    doctor(&fleet, "worker").expect("redis.connection", "error", "NOAUTH", "USER:PASSWORD");
    fleet.move_to(&format!("redis://127.0.0.1:{}", crate::support::free_port()));
    doctor(&fleet, "worker").expect("redis.connection", "error", "refused", "redis.url =");
    fleet.set("REDIS__URL", &format!("redis://127.0.0.1:{}", redis_of_version("6.2.14")));
    doctor(&fleet, "gateway").expect("redis.version", "error", "6.2.14", "Redis 7.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_delivered_users_and_roles_nothing_is_wrong_and_with_anybody_elses_it_says_what() {
    let mut fleet = Fleet::on(roles::redis());
    let database = Database::new(&fleet).await;
    for program in ["gateway", "worker"] {
        become_role(&mut fleet, &database, program);
        let said = doctor(&fleet, program);
        for well in ["redis.rights", "redis.needless_rights", "database.rights", "database.needless_rights"] {
            assert_eq!(said.level(well), "ok", "{program}: {:?}", said.findings);
        }
        assert_eq!((said.level("database.clock"), said.code), ("ok", Some(0)));
    }
    // The worker's settings given to a gateway, and the other way round.
    let said = doctor(&fleet, "gateway");
    said.expect("redis.rights", "error", "SUBSCRIBE wh:permissions", "&*");
    said.expect("database.rights", "error", "SELECT ON user_permissions", "roles.sql");
    become_role(&mut fleet, &database, "gateway");
    let said = doctor(&fleet, "worker");
    said.expect("redis.rights", "error", "XDEL", "ACL SETUSER wheelhouse-gateway");
    said.expect("database.rights", "error", "INSERT ON command_audit", "GRANT");
    fleet.set("DATABASE__URL", &database.url_of("owner"));
    doctor(&fleet, "gateway").expect("database.needless_rights", "warning", "command_audit", "wheelhouse_gateway");
    let empty = postgres::database().await;
    fleet.set("DATABASE__URL", &empty);
    let said = doctor(&fleet, "gateway");
    said.expect("database.migrations", "error", "has not been migrated", "wheelhouse migrate");
    said.expect("database.needless_rights", "warning", "superuser", "wheelhouse_gateway");
    let nowhere = fleet.folder().join("nowhere.db");
    fleet.set("DATABASE__URL", &format!("sqlite://{}", nowhere.display()));
    doctor(&fleet, "gateway").expect("database.migrations", "error", "has not been migrated", "wheelhouse migrate");
    assert!(!nowhere.exists(), "who only looks makes no file");
}

/// Something that answers as an older Redis does, as far as anybody asks.
fn redis_of_version(version: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let info = format!("redis_version:{version}\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let info = info.clone();
            std::thread::spawn(move || {
                let (mut reader, mut writer) = (BufReader::new(stream.try_clone().expect("clone")), stream);
                while let Some(words) = command(&mut reader) {
                    let answer = match words[0].to_ascii_uppercase().as_str() {
                        "INFO" => format!("${}\r\n{info}\r\n", info.len()),
                        "TIME" => format!("*2\r\n$10\r\n{:010}\r\n$1\r\n0\r\n", jiff::Timestamp::now().as_second()),
                        "EVAL" | "EXISTS" => ":1\r\n".to_owned(),
                        "SUBSCRIBE" | "PSUBSCRIBE" => {
                            let (kind, name) = (words[0].to_ascii_lowercase(), &words[1]);
                            format!("*3\r\n${}\r\n{kind}\r\n${}\r\n{name}\r\n:1\r\n", kind.len(), name.len())
                        }
                        "CONFIG" => "-ERR no\r\n".to_owned(),
                        _ => "+OK\r\n".to_owned(),
                    };
                    if writer.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// The words of the next command, as clients write it.
fn command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let line = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        line.trim_end().get(1..)?.parse::<usize>().ok()
    };
    let count = line(reader)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; line(reader)? + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8(word).ok()?);
    }
    Some(words)
}
