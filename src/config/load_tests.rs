//! Settings from each layer, and one line for each thing that can be wrong with them.

use std::ffi::OsString;

use secrecy::ExposeSecret;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Settings, SettingError> {
    load_from(None, environment(pairs), Overrides::new())
}

fn from_file(text: &str) -> Result<Settings, SettingError> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("my.toml");
    std::fs::write(&path, text).expect("write");
    load_from(Some(&path), environment(&[]), Overrides::new())
}

/// The one line of an error in the environment.
fn line(name: &str, value: &str) -> String {
    let error = from_environment(&[(name, value)]).expect_err("wrong").to_string();
    assert!(!error.contains('\n'), "{error}");
    assert!(error.ends_with(&format!("(from the environment variable {name})")), "{error}");
    error
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let settings = from_environment(&[("UNRELATED", "1"), ("WHEELHOUSE_CONFIG", "x")]).expect("defaults");
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(settings.redis.url.expose_secret(), "redis://127.0.0.1:6379");
    assert_eq!(settings.redis.partitions, 16);
    assert_eq!(settings.limits.commands_per_minute, 30);
    assert_eq!(settings.auth.permissions, PermissionSource::Database);
    assert!(settings.auth.hs256_secret.is_none() && settings.auth.jwks_url.is_none());
    assert!(settings.worker.tenants.is_none() && settings.server.public_origins.is_empty());
    assert_eq!(settings.log.format, LogFormat::Pretty);
    assert_eq!(settings.audit.keep, Some(Duration::from_secs(365 * 24 * 60 * 60)));
    let for_ever = from_environment(&[("WHEELHOUSE__AUDIT__KEEP_DAYS", "0")]).expect("settings");
    assert_eq!(for_ever.audit.keep, None);
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_the_defaults() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("my.toml");
    let text = "[limits]\ncommands_per_minute = 1\nbacklog_per_tenant = 1\nconnections_per_user = 1\n[worker]\n";
    std::fs::write(&path, text).expect("write");
    let variables = [("WHEELHOUSE__LIMITS__COMMANDS_PER_MINUTE", "2"), ("wheelhouse__limits__backlog_per_tenant", "2")];
    let flags = vec![("limits.commands_per_minute".to_owned(), "3".to_owned())];
    let limits = load_from(Some(&path), environment(&variables), flags).expect("settings").limits;
    assert_eq!((limits.commands_per_minute, limits.backlog_per_tenant, limits.connections_per_user), (3, 2, 1));
    assert_eq!(limits.messages_per_second, 20);
}

#[test]
fn lists_are_lists_in_a_file_and_texts_with_commas_in_the_environment() {
    let file = from_file(
        "[server]\npublic_origins = [\"https://A.example\", \"http://b:8080\"]\n[worker]\ntenants = [\"t1\"]",
    )
    .expect("settings");
    assert_eq!(file.server.public_origins, ["https://a.example", "http://b:8080"]);
    assert_eq!(file.worker.tenants.expect("some")[0].as_str(), "t1");
    let variables = [
        ("WHEELHOUSE__SERVER__PUBLIC_ORIGINS", "https://a.example:443, http://b:80,"),
        ("WHEELHOUSE__WORKER__TENANTS", "acme,globex"),
    ];
    let settings = from_environment(&variables).expect("settings");
    assert_eq!(settings.server.public_origins, ["https://a.example", "http://b"]);
    assert_eq!(settings.worker.tenants.expect("some").len(), 2);
}

#[test]
fn a_password_of_digits_stays_a_text() {
    let digits = "0123456789".repeat(4);
    let settings = from_environment(&[("WHEELHOUSE__AUTH__HS256_SECRET", &digits)]).expect("settings");
    assert_eq!(settings.auth.hs256_secret.expect("some").expose_secret(), digits);
}

#[test]
fn a_key_that_does_not_exist_is_an_error_that_names_the_nearest() {
    for (name, nearest) in [
        ("WHEELHOUSE__SERVER__LISTN", "server.listen"),
        ("WHEELHOUSE__REDIS_URL", "redis.url"),
        ("WHEELHOUSE__LISTEN", "server.listen"),
        ("WHEELHOUSE__AUTH__SECRET", "auth.hs256_secret"),
        ("WHEELHOUSE__LIMITS__COMMANDS_PER_MIN", "limits.commands_per_minute"),
    ] {
        let error = line(name, "x");
        assert!(error.contains(&format!("the nearest is {nearest} ")), "{error}");
    }
    for nothing_near in [
        "WHEELHOUSE__WORKER__COLOUR",
        "WHEELHOUSE__WORKER__FOO",
        "WHEELHOUSE__FROBNICATE",
        "WHEELHOUSE__REDIS__TIME",
        "WHEELHOUSE__X",
        "WHEELHOUSE__",
    ] {
        let error = line(nothing_near, "x");
        assert!(error.contains(": there is no such setting (from the environment variable "), "{error}");
    }
    let error = from_file("[redis]\nurls = \"redis://x\"").expect_err("wrong").to_string();
    assert!(
        error.starts_with("setting redis.urls: there is no such setting; the nearest is redis.url (from the file ")
    );
    let error = from_file("redis = \"redis://x\"").expect_err("wrong").to_string();
    assert!(
        error.contains(
            "setting redis: is a section, not a setting; in it are redis.ca_file, redis.client_cert_file, redis.client_key_file, redis.fsyncs_to_wait, redis.heard_channels, redis.partitions, redis.published_channels, redis.replicas_to_wait, redis.url"
        ),
        "{error}"
    );
}

#[test]
fn every_wrong_value_is_one_line_with_key_problem_and_source() {
    for (name, value, problem) in [
        ("WHEELHOUSE__SERVER__LISTEN", "8000", "setting server.listen: must be an IP address and a port"),
        ("WHEELHOUSE__SERVER__PUBLIC_ORIGINS", "ops.example.com", "\"ops.example.com\" is not an origin"),
        ("WHEELHOUSE__SERVER__PUBLIC_ORIGINS", "https://a/", "is not an origin"),
        ("WHEELHOUSE__SERVER__PUBLIC_ORIGINS", "https://*.a", "is not an origin"),
        ("WHEELHOUSE__SERVER__PUBLIC_ORIGINS", "ws://a", "is not an origin"),
        ("WHEELHOUSE__SERVER__PUBLIC_ORIGINS", "https://u@a", "is not an origin"),
        ("WHEELHOUSE__SERVER__DRAIN_SECONDS", "-1", "whole number from 0 to 3600, not \"-1\""),
        ("WHEELHOUSE__SERVER__KEEP_ALIVE_SECONDS", "0", "whole number from 1 to 3600"),
        ("WHEELHOUSE__SERVER__TRUSTED_PROXIES", "10.0.0.0/33", "\"10.0.0.0/33\" is not a network"),
        ("WHEELHOUSE__SERVER__FORWARDED_HEADERS", "x-real-ip", "\"x-real-ip\" is not a header that is read here"),
        ("WHEELHOUSE__SERVER__PROXY_PROTOCOL", "v2", "must be \"off\" or \"on\""),
        ("WHEELHOUSE__SERVER__PROXY_PROTOCOL", "on", "server.trusted_proxies names nobody"),
        ("WHEELHOUSE__REDIS__PARTITIONS", "0", "whole number from 1 to 1024"),
        ("WHEELHOUSE__REDIS__PARTITIONS", "1025", "whole number from 1 to 1024"),
        ("WHEELHOUSE__LIMITS__COMMANDS_PER_MINUTE", "0", "whole number from 1"),
        ("WHEELHOUSE__LIMITS__COMMANDS_PER_MINUTE", "true", "not \"true\""),
        ("WHEELHOUSE__LIMITS__MESSAGES_PER_SECOND", "1.5", "not \"1.5\""),
        ("WHEELHOUSE__WORKER__TENANTS", "acme,a:b", "\"a:b\": a tenant id must be"),
        ("WHEELHOUSE__WORKER__TENANTS", "", "name at least one"),
        ("WHEELHOUSE__WORKER__TENANTS", "*,acme", "\"*\": a tenant id must be"),
        ("WHEELHOUSE__AUTH__PERMISSIONS", "sql", "must be \"database\" or \"token\", not \"sql\""),
        ("WHEELHOUSE__AUTH__JWKS_URL", "ftp://x", "https://… or http://…"),
        ("WHEELHOUSE__AUTH__JWKS_URL", "https://:1/x", "is not a web address"),
        ("WHEELHOUSE__AUDIT__KEEP_DAYS", "-1", "whole number from 0 to 36500"),
        ("WHEELHOUSE__LOG__FORMAT", "text", "must be \"pretty\" or \"json\""),
        ("WHEELHOUSE__LOG__LEVEL", "verbose", "\"verbose\" is not a level"),
        ("WHEELHOUSE__LOG__LEVEL", "wheelhouse=loud", "is not a filter"),
        ("WHEELHOUSE__LOG__LEVEL", "", "is not a level"),
        ("WHEELHOUSE__COMMAND__TTL", "1h", "whole number"),
    ] {
        let error = line(name, value);
        assert!(error.contains(problem), "{error}");
    }
    assert!(from_environment(&[("WHEELHOUSE__LOG__LEVEL", "wheelhouse=debug,warn")]).is_ok());
}

#[test]
fn a_wrong_type_in_a_file_is_named_with_the_file() {
    for (text, problem) in [
        ("[limits]\ncommands_per_minute = true", "not true"),
        ("[server]\nlisten = 8000", "must be a text"),
        ("[server]\npublic_origins = [1]", "must be a list of texts"),
        ("[redis]\npartitions = [1]", "not a list"),
    ] {
        let error = from_file(text).expect_err("wrong").to_string();
        assert!(error.contains(problem) && error.contains("my.toml)") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn no_secret_stands_in_an_error() {
    for (name, value) in [
        ("WHEELHOUSE__AUTH__HS256_SECRET", "hunter2"),
        ("WHEELHOUSE__REDIS__URL", "unix://:hunter2@host"),
        ("WHEELHOUSE__REDIS__URL", "redis://:hunter2@ho st"),
        ("WHEELHOUSE__DATABASE__URL", "mysql://u:hunter2@host/x"),
        ("WHEELHOUSE__AUTH__JWKS_URL", "u:hunter2@host"),
    ] {
        let error = line(name, value);
        assert!(!error.contains("hunter2"), "{error}");
    }
    assert!(line("WHEELHOUSE__AUTH__HS256_SECRET", "hunter2").contains("must have 32 bytes or more, and this has 7"));
    let error = from_file("[auth]\nhs256_secret = \"hunter2\" oops").expect_err("wrong").to_string();
    assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
    assert!(error.contains("line 2"), "{error}");
    let secret = "hunter2hunter2hunter2hunter2hunter2";
    let settings = from_environment(&[("WHEELHOUSE__AUTH__HS256_SECRET", secret)]).expect("settings");
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn keys_of_the_issuer_come_from_one_place() {
    let both = [("WHEELHOUSE__AUTH__JWKS_URL", "https://issuer/keys"), ("WHEELHOUSE__AUTH__JWKS_FILE", "/k.json")];
    let error = from_environment(&both).expect_err("wrong").to_string();
    assert!(error.contains("set one of the two") && error.contains("WHEELHOUSE__AUTH__JWKS_FILE"), "{error}");
}

#[test]
fn a_sign_in_through_the_issuer_needs_what_its_tokens_are_checked_with() {
    let client = ("WHEELHOUSE__CONSOLE__OIDC_CLIENT_ID", "console");
    let issuer = ("WHEELHOUSE__AUTH__ISSUER", "https://issuer.test/realms/one");
    let keys = ("WHEELHOUSE__AUTH__JWKS_URL", "https://issuer.test/keys");
    let refused = |settings: &[(&str, &str)]| from_environment(settings).expect_err("wrong").to_string();
    assert!(refused(&[client]).contains("needs auth.issuer"));
    assert!(refused(&[client, issuer]).contains("needs auth.jwks_url"));
    for issuer in ["http://issuer.test", "issuer.test", "https://issuer.test/?a=b", "https://a;script-src"] {
        let error = refused(&[client, keys, ("WHEELHOUSE__AUTH__ISSUER", issuer)]);
        assert!(error.contains("must be an https:// address") && error.contains("auth.issuer"), "{error}");
    }
    for (key, value, says) in [
        ("SCOPES", "profile", "openid"),
        ("PARAMETERS", "resource", "name=value"),
        ("PARAMETERS", "a=b c", "name=value"),
        ("ORIGINS", "https://a.test/path", "is not an origin"),
        ("ORIGINS", "https://a;b.test", "characters that no host has"),
    ] {
        let error = refused(&[client, issuer, keys, (&format!("WHEELHOUSE__CONSOLE__OIDC_{key}"), value)]);
        assert!(error.contains(says), "{error}");
    }
    assert!(from_environment(&[issuer, keys]).expect("settings").oidc.is_none());
    let more = ("WHEELHOUSE__CONSOLE__OIDC_ORIGINS", "https://tokens.test:443");
    let oidc = from_environment(&[client, issuer, keys, more]).expect("settings").oidc.expect("a sign-in");
    assert_eq!((oidc.client_id.as_str(), oidc.scopes.as_str()), ("console", "openid"));
    assert_eq!(oidc.origins, ["https://issuer.test", "https://tokens.test"]);
    let here = [client, ("WHEELHOUSE__AUTH__ISSUER", "http://127.0.0.1:9000"), keys];
    assert_eq!(from_environment(&here).expect("settings").oidc.expect("a sign-in").origins, ["http://127.0.0.1:9000"]);
}

#[test]
fn a_file_that_is_not_there_and_a_wrong_flag_say_so() {
    let error = load_from(Some(Path::new("/nowhere/x.toml")), environment(&[]), Overrides::new()).expect_err("wrong");
    assert!(error.to_string().contains("cannot be read") && error.to_string().contains("/nowhere/x.toml"));
    let flags = vec![("server.listen".to_owned(), "x".to_owned())];
    let error = load_from(None, environment(&[]), flags).expect_err("wrong").to_string();
    assert!(error.ends_with("(from the flag that sets server.listen)"), "{error}");
}

#[test]
fn every_scheme_of_the_contract_is_taken() {
    for url in ["redis://h", "rediss://:p@h:1/0", "redis+sentinel://a:1,b:2/main", "redis+cluster://a:1,b:2"] {
        assert!(from_environment(&[("WHEELHOUSE__REDIS__URL", url)]).is_ok(), "{url}");
    }
    for url in ["sqlite://x.db", "sqlite:///var/x.db", "postgres://u:p@h/d", "postgresql://h/d"] {
        assert!(from_environment(&[("WHEELHOUSE__DATABASE__URL", url)]).is_ok(), "{url}");
    }
}

#[test]
fn a_database_number_is_refused_in_every_form_of_the_address_with_the_reason_and_without_the_password() {
    for url in [
        "redis://h/1",
        "redis://h:6379/15?protocol=resp3",
        "rediss://ann:hunter2@h/3",
        "redis+sentinel://:hunter2@a:1,b:2/main/2",
        "rediss+sentinel://a/main/1",
        "redis+cluster://:hunter2@a:1,b:2/4",
        "redis://:hunter2@h?db=1",
        "redis://h/0?protocol=resp3&db=2",
    ] {
        let error = from_environment(&[("WHEELHOUSE__REDIS__URL", url)]).expect_err(url).to_string();
        assert!(error.starts_with("setting redis.url: names database "), "{error}");
        assert!(error.contains("pub/sub ignores") && error.contains("WHEELHOUSE__REDIS__URL"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for url in
        ["redis://h/", "redis://h/0", "redis://h/0?protocol=resp3", "redis+sentinel://a/1", "redis+sentinel://a/main/0"]
    {
        assert!(from_environment(&[("WHEELHOUSE__REDIS__URL", url)]).is_ok(), "{url}");
    }
}

#[test]
fn every_setting_in_the_defaults_is_read() {
    let layers = SettingLayers::read(None, environment(&[]), Overrides::new()).expect("defaults");
    for key in layers.keys() {
        let (section, name) = key.split_once('.').expect("section.name");
        let error = from_file(&format!("[{section}]\n{name} = [1]")).err();
        let error = error.unwrap_or_else(|| panic!("{key} is in the defaults, and nobody looks at its value"));
        assert_eq!(error.key, key);
    }
}

#[test]
fn a_ca_file_is_read_at_once_and_what_is_wrong_with_it_is_said() {
    let folder = tempfile::tempdir().expect("folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.display().to_string()
    };
    let with = |url: &str, path: &str| {
        from_environment(&[("WHEELHOUSE__REDIS__URL", url), ("WHEELHOUSE__REDIS__CA_FILE", path)])
    };
    assert!(with("rediss://h", "").expect("settings").redis.ca_pem.is_none());
    let empty = file("empty.pem", "no certificate\n");
    let broken = file("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = folder.path().join("missing.pem").display().to_string();
    for (url, path, problem) in [
        ("rediss://h", &missing, "cannot read"),
        ("rediss+cluster://h", &empty, "no certificate"),
        ("rediss+sentinel://h/main", &broken, "certificate"),
        ("redis://h", &empty, "asks for no TLS"),
    ] {
        let error = with(url, path).expect_err("wrong").to_string();
        assert!(error.starts_with("setting redis.ca_file: ") && error.contains(problem), "{error}");
        assert!(error.ends_with("(from the environment variable WHEELHOUSE__REDIS__CA_FILE)"), "{error}");
    }
}

#[test]
fn a_setting_by_its_old_name_is_read_and_reported_with_its_new_name() {
    let old = "WHEELHOUSE__WORKER__DEATHS_PER_JOB";
    let settings = from_environment(&[(old, "7")]).expect("settings");
    assert_eq!(settings.worker.max_worker_crashes, 7);
    let renamed = &settings.log.renamed;
    assert_eq!(renamed.len(), 1);
    assert_eq!((renamed[0].old.as_str(), renamed[0].new), ("worker.deaths_per_job", "worker.max_worker_crashes"));
    assert_eq!(renamed[0].source, format!("the environment variable {old}"));

    let settings = from_file("[worker]\nmax_worker_crashes = 3\ndeaths_per_job = 7").expect("settings");
    assert_eq!(settings.worker.max_worker_crashes, 3, "in one layer the new name counts");
    assert_eq!(settings.log.renamed.len(), 1);

    let settings = from_file("[worker]\nmax_worker_crashes = 3").expect("settings");
    assert_eq!(settings.log.renamed, []);

    let error = from_environment(&[(old, "0")]).expect_err("wrong").to_string();
    assert!(error.contains("worker.max_worker_crashes: must be a whole number from 1"), "{error}");
    assert!(error.contains(&format!("{old}, by the old name worker.deaths_per_job")), "{error}");
}

#[test]
fn a_later_layer_counts_also_where_it_has_the_old_name() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("my.toml");
    std::fs::write(&path, "[worker]\nmax_worker_crashes = 3").expect("write");
    let flags = vec![("worker.deaths_per_job".to_owned(), "4".to_owned())];
    let settings = load_from(Some(&path), environment(&[]), flags).expect("settings");
    assert_eq!(settings.worker.max_worker_crashes, 4);
}

#[test]
fn what_is_heard_has_to_be_published_and_sharded_channels_need_a_cluster() {
    let of = |scheme: &str, published: &str, heard: &str| {
        from_file(&format!(
            "[redis]\nurl = \"{scheme}://127.0.0.1:6379\"\npublished_channels = \"{published}\"\nheard_channels = \"{heard}\""
        ))
    };
    for (published, heard) in [("plain", "plain"), ("both", "plain"), ("both", "sharded"), ("sharded", "sharded")] {
        assert!(of("rediss+cluster", published, heard).is_ok(), "{published} {heard}");
    }
    for (scheme, published, heard, problem) in [
        (
            "redis+cluster",
            "plain",
            "sharded",
            "setting redis.heard_channels: is \"sharded\", and redis.published_channels is \"plain\"",
        ),
        (
            "redis+cluster",
            "sharded",
            "plain",
            "setting redis.heard_channels: is \"plain\", and redis.published_channels is \"sharded\"",
        ),
        ("redis", "both", "plain", "setting redis.published_channels: needs a cluster"),
        ("redis+cluster", "all", "plain", "must be \"plain\" or \"both\" or \"sharded\", not \"all\""),
    ] {
        let error = of(scheme, published, heard).expect_err("wrong").to_string();
        assert!(error.contains(problem), "{error}");
    }
}
