//! Encrypted ways: client certificates for Redis and PostgreSQL, and listeners with TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use sqlx::Executor;

use crate::support::api::until;
use crate::support::clock::Clock;
use crate::support::fleet::{Fleet, http_get};
use crate::support::postgres;
use crate::support::tls::Authority;

#[tokio::test(flavor = "multi_thread")]
async fn redis_and_postgresql_are_spoken_to_with_client_certificates_and_not_without() {
    let authority = Authority::new();
    authority.sign("IP:127.0.0.1");
    let (certificate, key) = authority.sign_client("postgres");
    let (redis, port) = authority.server(&["--tls-auth-clients", "yes"]);
    let server = postgres::with_client_certificates(&authority).await;
    let mut fleet = Fleet::on(redis);
    let text = |path: &Path| path.display().to_string();
    let database = format!("{server}?sslmode=verify-full&sslrootcert={}", text(&authority.file()));
    fleet.set("REDIS__URL", &format!("rediss://127.0.0.1:{port}"));
    fleet.set("REDIS__CA_FILE", &text(&authority.file()));

    // Without a certificate neither lets anybody in, and the words say what is lacking.
    let refused = |fleet: &Fleet, args: &[&str]| {
        let ran = fleet.command(args).output().expect("run");
        assert!(!ran.status.success(), "{ran:?}");
        String::from_utf8_lossy(&ran.stderr).into_owned()
    };
    let words = refused(&fleet, &["inspect", "workers"]);
    assert!(words.contains("redis.client_cert_file"), "{words}");
    fleet.set("DATABASE__URL", &database);
    let words = refused(&fleet, &["migrate"]);
    assert!(words.contains("certificate") && words.contains("sslcert=FILE&sslkey=FILE"), "{words}");

    // A file that is not as it should be is named, with where it is named.
    let stranger = Authority::new();
    let (of_stranger, key_of_stranger) = stranger.sign_client("postgres");
    let (own, absent) = (text(&authority.file()), "/nowhere/ca.pem".to_owned());
    let (certificate_file, key_file) = (text(&certificate), text(&key));
    for (root, cert_and_key, words) in [
        (
            &absent,
            None,
            "sslrootcert of database.url (else PGSSLROOTCERT): \"/nowhere/ca.pem\" cannot be read".to_owned(),
        ),
        (
            &key_file,
            None,
            format!("sslrootcert of database.url (else PGSSLROOTCERT): {key_file:?} holds no certificate"),
        ),
        (&text(&stranger.file()), None, "is not signed by an authority in sslrootcert of database.url".to_owned()),
        (&own, Some((&certificate_file, None)), format!("{certificate_file:?} is named without sslkey")),
        (
            &own,
            Some((&certificate_file, Some(&certificate_file))),
            format!("{certificate_file:?} cannot be used with sslkey"),
        ),
        (
            &own,
            Some((&certificate_file, Some(&absent))),
            "sslkey of database.url (else PGSSLKEY): \"/nowhere".to_owned(),
        ),
        (
            &own,
            Some((&text(&of_stranger), Some(&text(&key_of_stranger)))),
            "sslcert and sslkey of database.url".to_owned(),
        ),
    ] {
        let mut url = format!("{server}?sslmode=verify-full&sslrootcert={root}");
        if let Some((certificate, key)) = cert_and_key {
            url.push_str(&format!("&sslcert={certificate}"));
            key.iter().for_each(|key| url.push_str(&format!("&sslkey={key}")));
        }
        fleet.set("DATABASE__URL", &url);
        let said = refused(&fleet, &["migrate"]);
        assert!(said.contains(&words) && !said.contains("BEGIN"), "{words}: {said}");
    }

    fleet.set("DATABASE__URL", &format!("{database}&sslcert={}&sslkey={}", text(&certificate), text(&key)));
    fleet.set("REDIS__CLIENT_CERT_FILE", &text(&certificate));
    let words = refused(&fleet, &["gateway"]);
    assert!(words.contains("redis.client_cert_file") && words.contains("redis.client_key_file"), "{words}");
    fleet.set("REDIS__CLIENT_KEY_FILE", &text(&certificate));
    let words = refused(&fleet, &["gateway"]);
    assert!(words.contains("redis.client_cert_file") && !words.contains("BEGIN"), "{words}");
    fleet.set("REDIS__CLIENT_CERT_FILE", &text(&of_stranger));
    fleet.set("REDIS__CLIENT_KEY_FILE", &text(&key_of_stranger));
    let words = refused(&fleet, &["inspect", "workers"]);
    assert!(words.contains("does not take this program's certificate"), "{words}");
    fleet.set("REDIS__CLIENT_CERT_FILE", &text(&certificate));
    fleet.set("REDIS__CLIENT_KEY_FILE", &text(&key));
    let migrated = fleet.command(&["migrate"]).output().expect("run");
    assert!(migrated.status.success(), "{migrated:?}");

    let granted = fleet.command(&["grant", "--user", "ann", "jobs.*"]).output().expect("run");
    assert!(granted.status.success(), "{granted:?}");
    let gateway = fleet.gateway();
    fleet.worker();
    let own = format!("{database}&sslcert={}&sslkey={}", text(&certificate), text(&key));
    let sql = sqlx::PgPool::connect(&own).await.expect("connect");
    sql.execute("INSERT INTO jobs (id, tenant_id, status) VALUES ('j1', 'acme', 'running')").await.expect("insert");
    let mut socket = fleet.socket(gateway, "ann", "acme", "jobs/j1").await;
    socket.send(json!({"type": "pause_job"})).await;
    socket.until(&["pause_succeeded"]).await;
    let said = fleet.command(&["doctor", "--json"]).output().expect("run");
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
    for check in ["redis.tls", "database.tls", "redis.connection", "database.connection"] {
        let found = said["findings"].as_array().expect("findings").iter().find(|finding| finding["check"] == check);
        assert_eq!(found.expect(check)["level"], "ok", "{found:?}");
    }
}

/// A stream with TLS to a server whose authority is this file; `first` goes before the handshake.
fn tls(address: &str, authority: &Path, first: &str) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).expect("read") {
        roots.add(certificate.expect("PEM")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let host = address.parse::<SocketAddr>().expect("address").ip();
    let connection = rustls::ClientConnection::new(Arc::new(config), ServerName::from(host)).expect("client");
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("time-out");
    stream.write_all(first.as_bytes()).expect("write");
    rustls::StreamOwned::new(connection, stream)
}

/// What a GET over TLS is answered with; `None` where the server is not believed.
fn get(address: &str, authority: &Path, first: &str, path: &str) -> Option<String> {
    let mut stream = tls(address, authority, first);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.starts_with("HTTP/1.1 ").then_some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_with_tls_serves_requests_and_sockets_and_takes_a_renewed_certificate_into_use() {
    let (first, second) = (Authority::new(), Authority::new());
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    fleet.external_job("acme", "j1").await;
    let (certificate, key) = (fleet.folder().join("own.pem"), fleet.folder().join("own.key"));
    let put = |authority: &Authority| {
        authority.sign("IP:127.0.0.1");
        for (from, to) in [("server.key", &key), ("server.pem", &certificate)] {
            std::fs::copy(authority.file().with_file_name(from), to).expect("copy");
        }
    };
    put(&first);
    fleet.set("SERVER__TLS_CERT_FILE", &certificate.display().to_string());
    let refused = fleet.command(&["gateway"]).output().expect("run");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("server.tls_cert_file") && words.contains("server.tls_key_file"), "{words}");
    fleet.set("SERVER__TLS_KEY_FILE", &key.display().to_string());
    let (gateway, _) = fleet.gateway_with_admin();
    fleet.worker();
    let address = fleet.process(gateway).address.clone();

    let (token, ca) = (fleet.token("ann", "acme"), first.file().display().to_string());
    let list = ["job", "ls", "--url", &format!("https://{address}"), "--token", &token, "--ca-file", &ca];
    let ran = fleet.command(&list).output().expect("run");
    assert!(ran.status.success() && String::from_utf8_lossy(&ran.stdout).starts_with("j1"), "{ran:?}");
    let plain = http_get(&address, "/healthz");
    assert!(plain.is_none_or(|(status, _)| status != 200), "plain HTTP is not answered");

    // A socket; the client of the tests speaks blocking TLS.
    let (authority, url) = (first.file(), format!("ws://{address}/api/v1/realtime/ws/jobs/j1?token={token}"));
    let stream = tls(&address, &authority, "");
    let talk = tokio::task::spawn_blocking(move || {
        let (mut socket, _) = tokio_tungstenite::tungstenite::client(url, stream).expect("upgrade");
        let until = |socket: &mut tokio_tungstenite::tungstenite::WebSocket<_>, kind: &str| loop {
            let text = socket.read().expect("a message").into_text().expect("text").to_string();
            if text.contains(&format!("\"type\":\"{kind}\"")) {
                return text;
            }
        };
        until(&mut socket, "job_snapshot");
        socket.send("{\"type\":\"pause_job\"}".into()).expect("send");
        until(&mut socket, "pause_succeeded");
        socket.close(None).expect("close");
        while socket.read().is_ok() {}
    });
    talk.await.expect("the socket works");

    // Renewed by another authority: whoever trusts that one alone is served without a restart.
    assert_eq!(get(&address, &second.file(), "", "/healthz"), None);
    put(&second);
    until("the new certificate is in use", async || get(&address, &second.file(), "", "/healthz").is_some()).await;
    assert_eq!(get(&address, &first.file(), "", "/healthz"), None);
    // One that cannot be used changes nothing.
    std::fs::write(&certificate, "no certificate").expect("write");
    until("that is said", async || fleet.log().contains("http.certificate_not_changed")).await;
    assert!(get(&address, &second.file(), "", "/healthz").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_whose_time_is_not_now_is_said_and_does_not_replace_one_that_is_valid() {
    let (authority, clock, mut fleet) = (Authority::new(), Clock::new(), Fleet::new());
    let (certificate, key) = (fleet.folder().join("own.pem"), fleet.folder().join("own.key"));
    let put = |days: i64| {
        clock.set(days * 24 * 60 * 60);
        authority.sign_by(&clock.env(), "IP:127.0.0.1");
        for (from, to) in [("server.key", &key), ("server.pem", &certificate)] {
            std::fs::copy(authority.file().with_file_name(from), to).expect("copy");
        }
    };
    fleet.set("SERVER__TLS_CERT_FILE", &certificate.display().to_string());
    fleet.set("SERVER__TLS_KEY_FILE", &key.display().to_string());
    let is_served = |address: &str| get(address, &authority.file(), "", "/healthz").is_some();
    // At the start there is nothing better.
    put(-3);
    let (gateway, _) = fleet.gateway_with_admin();
    let address = fleet.process(gateway).address.clone();
    until("that is said", async || fleet.log().contains("http.certificate_not_valid")).await;
    assert!(!is_served(&address), "it has expired");
    put(0);
    until("one that is valid is in use", async || is_served(&address)).await;
    for (days, words) in [(-3, "has expired: it was valid until"), (3, "is not valid before")] {
        put(days);
        let is_said =
            |line: &str| line.contains("http.certificate_not_changed: the one before") && line.contains(words);
        until("that is said", async || fleet.log().lines().any(is_said)).await;
        assert!(is_served(&address), "{days}");
    }
    let log = fleet.log();
    assert_eq!(log.matches("http.certificate_changed").count(), 1, "{log}");
    assert_eq!(log.matches("http.certificate_not_valid").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_with_a_proxy_header_the_handshake_comes_after_it() {
    let authority = Authority::new();
    authority.sign("IP:127.0.0.1");
    let mut fleet = Fleet::new();
    let file = |name: &str| authority.file().with_file_name(name).display().to_string();
    fleet.set("SERVER__TLS_CERT_FILE", &file("server.pem"));
    fleet.set("SERVER__TLS_KEY_FILE", &file("server.key"));
    fleet.set("SERVER__TRUSTED_PROXIES", "127.0.0.1");
    fleet.set("SERVER__PROXY_PROTOCOL", "on");
    let (gateway, _) = fleet.gateway_with_admin();
    let address = fleet.process(gateway).address.clone();
    let header = "PROXY TCP4 203.0.113.9 127.0.0.1 40000 443\r\n";
    let answer = get(&address, &authority.file(), header, "/healthz").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_on_the_second_listener_alone_and_it_answers_while_the_gateway_leaves() {
    let mut fleet = Fleet::new();
    fleet.set("SERVER__DRAIN_NOTICE_SECONDS", "3600");
    let (gateway, admin) = fleet.gateway_with_admin();
    let address = fleet.process(gateway).address.clone();
    let status = |address: &str, path: &str| http_get(address, path).map(|(status, _)| status);
    for (path, public, own) in [
        ("/healthz", 200, 200),
        ("/readyz", 200, 200),
        ("/metrics", 404, 200),
        ("/api/v1/openapi.json", 200, 404),
        ("/", 200, 404),
    ] {
        assert_eq!((status(&address, path), status(&admin, path)), (Some(public), Some(own)), "{path}");
    }
    assert!(http_get(&admin, "/metrics").expect("an answer").1.contains("wheelhouse_redis_up 1"));
    fleet.signal(gateway, Signal::TERM);
    until("it says that it leaves", async || status(&admin, "/readyz") == Some(503)).await;
    assert!(http_get(&admin, "/readyz").expect("an answer").1.contains("\"draining\":true"));
    for same in ["server.admin_listen=127.0.0.1:8000", "server.admin_listen=here"] {
        let refused = fleet.command(&["gateway", "--set", same]).output().expect("run");
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && words.contains("server.admin_listen"), "{refused:?}");
    }
}
