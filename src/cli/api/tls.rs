//! Which certificates are believed, and why a connection failed, in words.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, RootCertStore, SignatureScheme};

use super::unreachable::Unreachable;
use crate::cli::usage::usage;

/// The authorities of `--ca-file`, else of SSL_CERT_FILE and SSL_CERT_DIR, else the public ones.
pub(super) fn client_config(ca_file: Option<&Path>, is_tls: bool) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let public = || RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let read_ca_file = if is_tls { read_ca_file(ca_file)? } else { None };
    let Some(read_ca_file) = read_ca_file else {
        return Ok(versions.with_root_certificates(public()).with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read_ca_file.iter().cloned());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let verifier = Arc::new(TrustStore { verifier, read_ca_file, provider });
    Ok(versions.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// The certificates that flag or environment name; `None` where they name nothing.
fn read_ca_file(ca_file: Option<&Path>) -> anyhow::Result<Option<Vec<CertificateDer<'static>>>> {
    let environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let (source, found) = if let Some(file) = ca_file {
        let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let read = read.map_err(|error| usage(format!("--ca-file {}: {}", file.display(), pem_message(&error))))?;
        (format!("--ca-file {}", file.display()), read)
    } else {
        let (file, dir) = (environment("SSL_CERT_FILE"), environment("SSL_CERT_DIR"));
        if file.is_none() && dir.is_none() {
            return Ok(None);
        }
        let result =
            rustls_native_certs::load_certs_from_paths(file.as_deref().map(Path::new), dir.as_deref().map(Path::new));
        let source = match (&file, &dir) {
            (Some(file), _) => format!("SSL_CERT_FILE={}", Path::new(file).display()),
            (None, Some(dir)) => format!("SSL_CERT_DIR={}", Path::new(dir).display()),
            (None, None) => String::new(),
        };
        if let (true, Some(error)) = (result.certs.is_empty(), result.errors.first()) {
            return Err(usage(format!("{source}: {error}")));
        }
        (source, result.certs)
    };
    if found.is_empty() {
        return Err(usage(format!("{source} holds no certificate in PEM")));
    }
    Ok(Some(found))
}

fn pem_message(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => format!("cannot be read: {error}"),
        _ => "is no PEM file of certificates".to_owned(),
    }
}

/// As usual, and beyond that believes a server that shows one of the named certificates itself. `openssl req -x509` makes
/// self-signed certificates that call themselves an authority's, which the usual rules take from no server.
#[derive(Debug)]
struct TrustStore {
    verifier: Arc<WebPkiServerVerifier>,
    read_ca_file: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustStore {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.verifier.verify_server_cert(shown, between, name, ocsp, now) {
            // Said only after the time of the certificate was found good; the name is still to be looked at.
            Err(error) if calls_itself_an_authority(&error) && self.read_ca_file.iter().any(|known| known == shown) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn calls_itself_an_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Why no answer came.
pub(super) fn to_message(error: &hyper_util::client::legacy::Error, base: &str) -> anyhow::Error {
    let causes: Vec<&(dyn Error + 'static)> =
        std::iter::successors(Some(error as &(dyn Error + 'static)), |error| inner(*error)).collect();
    if let Some(tls) = causes.iter().find_map(|error| error.downcast_ref::<rustls::Error>()) {
        return anyhow::anyhow!("{}", tls_message(tls, base));
    }
    let hyper = causes.iter().find_map(|error| error.downcast_ref::<hyper::Error>());
    if hyper.is_some_and(hyper::Error::is_parse) {
        let perhaps = base.strip_prefix("http://").map(|rest| format!("; if it speaks TLS, write https://{rest}"));
        return anyhow::anyhow!("what answers at {base} speaks no HTTP{}", perhaps.unwrap_or_default());
    }
    if error.is_connect() {
        let why = causes.last().map(ToString::to_string).unwrap_or_default();
        return Unreachable::error(format!("no gateway answers at {base}: is it running? ({why})"));
    }
    Unreachable::error(format!(
        "what listens at {base} closed the connection without an answer: is it a gateway? What was asked of it may have \
         been done"
    ))
}

/// The next cause. An `io::Error` names the cause of what it wraps, not what it wraps.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

fn tls_message(error: &rustls::Error, base: &str) -> String {
    let certificate = match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            let rest = base.strip_prefix("https://").unwrap_or(base);
            return format!("what answers at {base} speaks no TLS; for a gateway without it, write http://{rest}");
        }
        rustls::Error::InvalidCertificate(certificate) => certificate,
        _ => return format!("no TLS connection to {base}: {error}"),
    };
    let why = match certificate {
        CertificateError::UnknownIssuer => {
            "no authority that is known here signed it; name the authority's, or a self-signed one itself, with --ca-file \
             FILE"
                .to_owned()
        }
        CertificateError::Other(_) if calls_itself_an_authority(error) => {
            "it is self-signed, and known here to nobody; name it with --ca-file FILE".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: is the clock of this machine right?".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            format!("it is for {}, not for this address", presented.join(", "))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is not for this address (it names no host in subjectAltName)".to_owned()
        }
        other => other.to_string(),
    };
    format!("the certificate of {base} is not believed: {why}")
}
