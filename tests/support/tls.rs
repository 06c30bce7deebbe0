//! A throwaway certificate authority, and a `redis-server` with TLS whose certificate it has signed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::redis::RedisServer;

/// Signs certificates; gone with its folder.
pub struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let it = Self { folder };
        it.openssl(&[
            "req",
            "-x509",
            "-days",
            "2",
            "-subj",
            "/CN=a CA of one test",
            "-out",
            "ca.pem",
            "-keyout",
            "ca.key",
        ]);
        it
    }

    /// Its own certificate, in PEM.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Makes `server.pem` and `server.key`, for a name or number as in `IP:127.0.0.1` or `DNS:redis.example`.
    pub fn sign(&self, name: &str) {
        self.sign_by(&[], name);
    }

    /// The same, by the clock of these variables (see `Clock::env`): two days from then on.
    pub fn sign_by(&self, clock: &[(String, PathBuf)], name: &str) {
        let extensions = format!("subjectAltName={name}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(self.folder.path().join("extensions"), extensions).expect("write");
        self.openssl(&["req", "-subj", "/CN=redis", "-out", "server.csr", "-keyout", "server.key"]);
        let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        self.run(Command::new("openssl").envs(clock.iter().cloned()).args(sign).args([
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            "server.pem",
        ]));
    }

    /// Makes the certificate of a client with this name, and its key.
    pub fn sign_client(&self, name: &str) -> (PathBuf, PathBuf) {
        let subject = format!("/CN={name}");
        self.openssl(&["req", "-subj", &subject, "-out", "client.csr", "-keyout", "client.key"]);
        let sign = ["x509", "-req", "-in", "client.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        // With an extension it is of version 3, and others are not taken.
        std::fs::write(self.folder.path().join("of-a-client"), "extendedKeyUsage=clientAuth\n").expect("write");
        let more = ["-days", "2", "-extfile", "of-a-client", "-out", "client.pem"];
        self.run(Command::new("openssl").args(sign).args(more));
        (self.folder.path().join("client.pem"), self.folder.path().join("client.key"))
    }

    /// The arguments of a `redis-server` with TLS on a port, for clients without certificates.
    pub fn arguments(&self, port: u16) -> Vec<String> {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", file("server.pem")),
            ("--tls-key-file", file("server.key")),
            ("--tls-ca-cert-file", file("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    /// A server, and its port for TLS; the other port stays for the test itself.
    pub fn server(&self, more: &[&str]) -> (RedisServer, u16) {
        let mut port = 0;
        let server = RedisServer::start_with(|| {
            port = super::free_port();
            self.arguments(port).into_iter().chain(more.iter().map(|word| (*word).to_owned())).collect()
        });
        (server, port)
    }

    fn openssl(&self, words: &[&str]) {
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        self.run(Command::new("openssl").args(words).args(key));
    }

    fn run(&self, command: &mut Command) {
        let ran = command.current_dir(self.folder()).output().unwrap_or_else(|error| {
            panic!("cannot run openssl ({error}): install it with `make deps` (Debian: apt-get install openssl)")
        });
        assert!(ran.status.success(), "openssl: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}
