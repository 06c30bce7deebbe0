//! TLS on a listener. The certificate is read again when its files change, so that one that is renewed needs no restart.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::stream::{BegunStream, ClientStream};
use crate::config::CertificateFiles;

/// Longest time from the connection to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes that TLS takes before they have been sent. With more, a client that does not read would be noticed late.
const UNSENT: usize = 16 * 1024;

/// Speaks TLS with a certificate from files; cheap to clone.
#[derive(Clone)]
pub struct TlsServer {
    acceptor: TlsAcceptor,
    certificate: Arc<CurrentCertificate>,
    files: CertificateFiles,
}

#[derive(Debug)]
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

impl TlsServer {
    /// Reads both files. An error says which, and what is wrong with it.
    pub fn new(files: CertificateFiles) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = certified_key(&read(&files)?, &provider, &files)?;
        let certificate = Arc::new(CurrentCertificate(RwLock::new(Arc::new(key))));
        let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions.map_err(|error| format!("server.tls_cert_file: {error}"))?;
        let mut config = config.with_no_client_auth().with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate, files })
    }

    /// The handshake with a client, of whose connection `before` has been read already.
    pub async fn accept(&self, stream: TcpStream, before: Bytes) -> std::io::Result<ClientStream> {
        let begun = BegunStream::new(stream, before);
        let accepting = self.acceptor.accept_with(begun, |connection| connection.set_buffer_limit(Some(UNSENT)));
        let late = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "the TLS handshake took too long");
        let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await.map_err(late)??;
        Ok(ClientStream::Tls(Box::new(accepted)))
    }

    /// Takes a changed certificate into use, until told to stop. One that cannot be used is said once, and the one before
    /// stays: both files are seldom replaced in the same moment. So is one that is not valid now, where the one before is: it
    /// waits until its time has come, or until clients refuse the one before as well.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        let provider = aws_lc_rs::default_provider();
        let mut known = read(&self.files).ok();
        let mut waiting: Option<Arc<CertifiedKey>> = None;
        let (mut told_of_waiting, mut told_of_current) = (false, None);
        loop {
            let problem = problem_now(&self.certificate.0.read(), &self.files);
            if let Some(problem) = problem.as_ref().filter(|_| problem != told_of_current) {
                tracing::warn!(
                    problem,
                    "http.certificate_not_valid: clients refuse it. Put one that is valid into its place"
                );
            }
            told_of_current = problem;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
            let found = read(&self.files);
            if found.as_ref().ok() != known.as_ref() {
                let key = found.as_ref().map_err(Clone::clone);
                match key.and_then(|pem| certified_key(pem, &provider, &self.files)) {
                    Ok(key) => waiting = Some(Arc::new(key)),
                    Err(problem) => {
                        waiting = None;
                        tracing::warn!(problem, "http.certificate_not_changed");
                    }
                }
                told_of_waiting = false;
                known = found.ok();
            }
            let Some(next) = waiting.take() else { continue };
            let of_current = problem_now(&self.certificate.0.read(), &self.files);
            match problem_now(&next, &self.files) {
                Some(problem) if of_current.is_none() => {
                    if !told_of_waiting {
                        tracing::warn!(
                            problem,
                            "http.certificate_not_changed: the one before is valid and stays in use"
                        );
                    }
                    (waiting, told_of_waiting) = (Some(next), true);
                }
                _ => {
                    *self.certificate.0.write() = next;
                    tracing::info!(file = %self.files.certificate.display(), "http.certificate_changed");
                }
            }
        }
    }
}

/// What the two files hold.
#[derive(PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

fn read(files: &CertificateFiles) -> Result<Pem, String> {
    let read = |setting: &str, path: &std::path::Path| {
        std::fs::read(path).map_err(|error| format!("setting {setting}: cannot read {}: {error}", path.display()))
    };
    let certificate = read("server.tls_cert_file", &files.certificate)?;
    Ok(Pem { certificate, key: read("server.tls_key_file", &files.key)? })
}

fn certified_key(pem: &Pem, provider: &CryptoProvider, files: &CertificateFiles) -> Result<CertifiedKey, String> {
    let place = files.certificate.display();
    let chain = CertificateDer::pem_slice_iter(&pem.certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("setting server.tls_cert_file: {place} is no PEM file: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| {
        format!("setting server.tls_key_file: {} holds no private key in PEM: {error}", files.key.display())
    })?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| format!("setting server.tls_cert_file: {place} cannot be used with its key: {error}"))
}

/// Why clients would refuse this certificate now: it has expired, or its time has not come. Of those behind it nothing is said:
/// clients find other ways to an authority around one that has expired.
fn problem_now(key: &CertifiedKey, files: &CertificateFiles) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(key.cert.first()?).ok()?;
    // Nobody is trusted here, so that this always ends in an error; that of the time comes before all others.
    let usage = webpki::KeyUsage::server_auth();
    let checked = certificate.verify_for_usage(&[], &[], &[], UnixTime::now(), usage, None, None);
    let at = |time: UnixTime| {
        i64::try_from(time.as_secs()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
    };
    let (word, time) = match checked.err()? {
        webpki::Error::CertExpired { not_after, .. } => ("has expired: it was valid until", at(not_after)?),
        webpki::Error::CertNotValidYet { not_before, .. } => ("is not valid before", at(not_before)?),
        _ => return None,
    };
    Some(format!("the certificate in {} (server.tls_cert_file) {word} {time}", files.certificate.display()))
}
