//! Certificates: whose are believed, and which this program shows. What a file holds is checked at the start, because a wrong
//! one would otherwise look like a server that is away.

use super::error::SettingError;
use super::layers::SettingValue;
use super::load::Reader;
use super::{CertificateFiles, ClientCertificate};

impl Reader<'_> {
    /// A file of authorities, which is worth something only where there is TLS.
    pub(super) fn ca(&self, key: &str, is_tls: bool, otherwise: &str) -> Result<Option<Vec<u8>>, SettingError> {
        let (path, entry) = self.text(key)?;
        if path.is_empty() {
            return Ok(None);
        }
        if !is_tls {
            return self.wrong(key, entry, format!("is set, but {otherwise}"));
        }
        let pem = self.pem(key, path)?;
        match authorities(&pem) {
            Ok(()) => Ok(Some(pem)),
            Err(problem) => self.wrong(key, entry, format!("{path:?} {problem}")),
        }
    }

    /// The certificate that this program shows to Redis.
    pub(super) fn client_certificate(&self) -> Result<Option<ClientCertificate>, SettingError> {
        let (certificate_key, key_key) = ("redis.client_cert_file", "redis.client_key_file");
        let Some((certificate, key)) = self.pair(certificate_key, key_key)? else { return Ok(None) };
        let entry = self.layers.get(certificate_key)?;
        if !self.text("redis.url")?.0.starts_with("rediss") {
            return self.wrong(certificate_key, entry, "is set, but redis.url asks for no TLS: write rediss:// there (or rediss+sentinel://, rediss+cluster://)");
        }
        let certificate_pem = self.pem(certificate_key, &certificate)?;
        let key_pem = self.pem(key_key, &key)?;
        if let Err(error) = certificate_with_key(&certificate_pem, &key_pem) {
            let problem = format!("cannot be used with {key:?}: {error}");
            return self.wrong(certificate_key, entry, problem);
        }
        Ok(Some(ClientCertificate { certificate_pem, key_pem: key_pem.into() }))
    }

    /// The certificate of the gateway's listener. Whoever listens reads the files, and reads them again when they change.
    pub(super) fn listener_certificate(&self) -> Result<Option<CertificateFiles>, SettingError> {
        let (certificate_key, key_key) = ("server.tls_cert_file", "server.tls_key_file");
        let Some((certificate, key)) = self.pair(certificate_key, key_key)? else { return Ok(None) };
        for (setting, path, what) in [(certificate_key, &certificate, "CERTIFICATE"), (key_key, &key, "PRIVATE KEY")] {
            let pem = self.pem(setting, path)?;
            if !String::from_utf8_lossy(&pem).contains(&format!("{what}-----")) {
                let problem = format!("{path:?} holds no {} in PEM", what.to_lowercase());
                return self.wrong(setting, self.layers.get(setting)?, problem);
            }
        }
        Ok(Some(CertificateFiles { certificate: certificate.into(), key: key.into() }))
    }

    /// Two files that are of use together alone.
    fn pair(&self, one: &str, other: &str) -> Result<Option<(String, String)>, SettingError> {
        let (set, lacking) = match (self.optional(one)?, self.optional(other)?) {
            (None, None) => return Ok(None),
            (Some(one), Some(other)) => return Ok(Some((one, other))),
            (Some(_), None) => (one, other),
            (None, Some(_)) => (other, one),
        };
        self.wrong(
            set,
            self.layers.get(set)?,
            format!("is set without {lacking}: a certificate and its key go together"),
        )
    }

    fn pem(&self, key: &str, path: &str) -> Result<Vec<u8>, SettingError> {
        let entry: &SettingValue = self.layers.get(key)?;
        std::fs::read(path).or_else(|error| self.wrong(key, entry, format!("cannot read {path:?}: {error}")))
    }
}

/// A certificate and its own private key.
pub(crate) fn certificate_with_key(certificate_pem: &[u8], key_pem: &[u8]) -> Result<(), String> {
    let (client_cert, client_key) = (certificate_pem.to_vec(), key_pem.to_vec());
    let client_tls = redis::ClientTlsConfig { client_cert, client_key };
    let together = redis::TlsCertificates { client_tls: Some(client_tls), root_cert: None };
    // The client library's own reading, so that it finds nothing to object to later. It connects to nothing.
    redis::Client::build_with_tls("rediss://localhost", together).map(drop).map_err(|error| error.to_string())
}

/// At least one certificate, and nothing that cannot be read.
pub(crate) fn authorities(pem: &[u8]) -> Result<(), String> {
    let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
    // The client library's own reading, so that it finds nothing to object to later. It connects to nothing.
    redis::Client::build_with_tls("rediss://localhost", certificates)
        .map_err(|error| format!("is no PEM file of certificates: {error}"))?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(begin.len()).any(|some| some == begin) {
        Ok(())
    } else {
        Err("holds no certificate in PEM".to_owned())
    }
}
