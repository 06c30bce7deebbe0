//! To whom the command line sends a token, and which certificates it believes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::shell::{output, wheelhouse};
use crate::support::fleet::Fleet;
use crate::support::tls::Authority;

/// A server that keeps every byte it is sent.
fn listener() -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let heard = Arc::new(Mutex::new(String::new()));
    let kept = heard.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut some = [0; 4096];
            let length = stream.read(&mut some).unwrap_or(0);
            kept.lock().expect("lock").push_str(&String::from_utf8_lossy(&some[..length]));
        }
    });
    (port, heard)
}

#[test]
fn the_token_of_a_data_folder_goes_to_the_address_that_it_names_and_to_no_other() {
    let folder = tempfile::tempdir().expect("folder");
    let ((own, heard_own), (other, heard_other)) = (listener(), listener());
    for (name, dir) in [("a", ".wheelhouse"), ("b", "elsewhere")] {
        let kept = folder.path().join(dir);
        std::fs::create_dir(&kept).expect("make a folder");
        std::fs::write(kept.join("url"), format!("http://localhost:{own}\n")).expect("write");
        std::fs::write(kept.join("token"), format!("kept-secret-{name}\n")).expect("write");
    }
    let commands: [&[&str]; 6] = [
        &["job", "ls"],
        &["job", "show", "j1", "--follow"],
        &["campaign", "cancel", "c1"],
        &["batch", "pause", "--jobs", "j1"],
        &["schedule", "ls"],
        &["queue", "failed"],
    ];
    for args in commands {
        for url in [
            format!("http://localhost:{other}"),
            format!("http://127.0.0.1:{own}"),
            format!("https://localhost:{own}"),
            format!("http://localhost:{own}@127.0.0.1:{other}"),
        ] {
            for more in [&["--url", &url][..], &["--url", &url, "--data-dir", "elsewhere"]] {
                let refused = output(folder.path(), &[args, more].concat());
                assert_eq!(refused.status.code(), Some(2), "{args:?} {more:?}: {refused:?}");
                let words = String::from_utf8_lossy(&refused.stderr);
                assert!(words.contains("--token") || words.contains("write it as"), "{words}");
            }
            let mut by_environment = wheelhouse(folder.path(), args);
            let refused = by_environment.env("WHEELHOUSE_URL", &url).output().expect("run");
            assert_eq!(refused.status.code(), Some(2), "{args:?} {url}: {refused:?}");
        }
    }
    assert_eq!((heard_own.lock().expect("lock").as_str(), heard_other.lock().expect("lock").as_str()), ("", ""));
    output(folder.path(), &["job", "ls", "--url", &format!("http://LOCALHOST:{own}/")]);
    output(folder.path(), &["job", "ls", "--data-dir", "elsewhere"]);
    output(folder.path(), &["job", "ls", "--url", &format!("http://localhost:{other}"), "--token", "mine"]);
    let (own, other) = (heard_own.lock().expect("lock").clone(), heard_other.lock().expect("lock").clone());
    assert!(own.contains("Bearer kept-secret-a") && own.contains("Bearer kept-secret-b"), "{own}");
    assert!(other.contains("Bearer mine") && !other.contains("kept-secret"), "{other}");
}

/// A TLS server with this certificate before a gateway: each connection is one request. Gives its port.
pub(super) fn tls_before(certificate: &Path, key: &Path, gateway: &str) -> u16 {
    let chain = CertificateDer::pem_file_iter(certificate).expect("read").collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let (config, gateway) = (Arc::new(config), gateway.to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (config, gateway) = (config.clone(), gateway.clone());
            // Whoever does not believe the certificate hangs up.
            std::thread::spawn(move || -> Option<()> {
                let connection = rustls::ServerConnection::new(config).ok()?;
                let mut client = rustls::StreamOwned::new(connection, stream);
                let mut request = Vec::new();
                let mut some = [0; 4096];
                while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                    let length = client.read(&mut some).ok().filter(|length| *length > 0)?;
                    request.extend_from_slice(&some[..length]);
                }
                let mut behind = TcpStream::connect(gateway).ok()?;
                let text = String::from_utf8(request).ok()?.replacen("\r\n", "\r\nconnection: close\r\n", 1);
                behind.write_all(text.as_bytes()).ok()?;
                let mut answer = Vec::new();
                behind.read_to_end(&mut answer).ok()?;
                client.write_all(&answer).ok()?;
                client.conn.send_close_notify();
                client.flush().ok()
            });
        }
    });
    port
}

/// A self-signed certificate as the usual `openssl req -x509` makes it: it calls itself an authority's.
fn self_signed(folder: &Path, days: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join(format!("self{days}.pem")), folder.join(format!("self{days}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=gateway", "-addext", "subjectAltName=IP:127.0.0.1", "-days", days])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("run openssl");
    assert!(made.status.success(), "{made:?}");
    (certificate, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_believed_by_file_or_environment_and_refused_in_words() {
    let mut fleet = Fleet::new();
    fleet.permit("ann", "*").await;
    let gateway = fleet.gateway();
    fleet.external_job("acme", "j1").await;
    let (address, token) = (fleet.process(gateway).address.clone(), fleet.token("ann", "acme"));
    let authority = Authority::new();
    authority.sign("IP:127.0.0.1");
    let of = |name: &str| authority.file().with_file_name(name);
    let (own, own_key) = self_signed(fleet.folder(), "2");
    let signed = tls_before(&of("server.pem"), &of("server.key"), &address);
    let selfmade = tls_before(&own, &own_key, &address);
    let ask = |host: &str, port: u16, ca: &[&str], environment: &[(&str, &Path)]| -> Output {
        let url = format!("https://{host}:{port}");
        let mut command = wheelhouse(fleet.folder(), &["job", "ls", "--url", &url, "--token", &token]);
        command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        command.args(ca).envs(environment.iter().copied()).output().expect("run")
    };
    let text = |path: &Path| path.display().to_string();
    let (ca, own_text) = (text(&authority.file()), text(&own));
    let (ca_flag, own_flag) = (["--ca-file", ca.as_str()], ["--ca-file", own_text.as_str()]);
    for good in [
        ask("127.0.0.1", signed, &ca_flag, &[]),
        ask("127.0.0.1", selfmade, &own_flag, &[]),
        ask("127.0.0.1", signed, &[], &[("SSL_CERT_FILE", &authority.file())]),
        ask("127.0.0.1", selfmade, &[], &[("SSL_CERT_FILE", &own)]),
        ask("127.0.0.1", signed, &[], &[("WHEELHOUSE_CA_FILE", &authority.file())]),
        // The flag stands above the environment.
        ask("127.0.0.1", signed, &ca_flag, &[("SSL_CERT_FILE", &own)]),
    ] {
        assert!(good.status.success() && String::from_utf8_lossy(&good.stdout).starts_with("j1  "), "{good:?}");
    }
    let unknown = "no authority that is known here signed it";
    for (refused, words) in [
        (ask("127.0.0.1", signed, &[], &[]), unknown),
        (ask("127.0.0.1", selfmade, &[], &[]), "--ca-file FILE"),
        (ask("127.0.0.1", signed, &own_flag, &[]), unknown),
        (ask("127.0.0.1", selfmade, &ca_flag, &[]), "--ca-file FILE"),
        (ask("localhost", signed, &ca_flag, &[]), "not for this address"),
        (ask("localhost", selfmade, &own_flag, &[]), "not for this address"),
    ] {
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(said.contains("the certificate of https://") && said.contains(words), "{words}: {said}");
        assert!(!said.contains("is it running"), "{said}");
    }
    let nothing = fleet.folder().join("none.pem");
    let empty = fleet.folder().join("empty.pem");
    std::fs::write(&empty, "no certificate\n").expect("write");
    for (wrong, words) in [
        (ask("127.0.0.1", signed, &["--ca-file", &text(&nothing)], &[]), "cannot be read: No such file"),
        (ask("127.0.0.1", signed, &["--ca-file", &text(&empty)], &[]), "holds no certificate"),
        (ask("127.0.0.1", signed, &[], &[("SSL_CERT_FILE", &nothing)]), "SSL_CERT_FILE="),
        (ask("127.0.0.1", signed, &[], &[("SSL_CERT_FILE", &empty)]), "holds no certificate"),
    ] {
        let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
        assert_eq!(wrong.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.lines().count() == 1, "{words}: {said}");
    }
    let plain =
        wheelhouse(fleet.folder(), &["job", "ls", "--token", &token, "--url", &format!("http://127.0.0.1:{signed}")]);
    let mut plain = plain;
    let said = plain.output().expect("run");
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(words.contains("speaks no HTTP; if it speaks TLS, write https://127.0.0.1"), "{words}");
}
