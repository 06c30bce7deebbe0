//! The files that `database.url` names for TLS, and what to do where a connection fails because of a certificate. The client library
//! says of a file only that there is none, or what is wrong in it, and never which file it is.

use std::fmt;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::StoreError;
use crate::config::{authorities, certificate_with_key};

/// As its own `Display` writes a file, where the address could also hold the certificate itself.
const FILE: &str = "file: ";

/// One of the three, and what stands in it.
struct TlsFile {
    /// In `database.url`, and the variable that counts where it is not there.
    names: (&'static str, &'static str),
    /// Empty where the certificate itself stands in the address.
    path: String,
    pem: Vec<u8>,
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", place(self.names, &self.path))
    }
}

fn place((parameter, variable): (&str, &str), path: &str) -> String {
    let path = if path.is_empty() { String::new() } else { format!(" {path:?}") };
    format!("{parameter} of database.url (else {variable}):{path}")
}

/// Why a connection to PostgreSQL could not be made, as far as TLS has to do with it, with what to do; else the error as it is.
pub(super) async fn explain(error: StoreError, options: &PgConnectOptions) -> StoreError {
    if matches!(options.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow) {
        return error;
    }
    let (text, files) = match &error {
        StoreError::Unavailable(text) => (text, read_all(options).await),
        // The server has answered: the files are such that it could be asked.
        StoreError::Refused(text) => (text, Ok(None)),
        _ => return error,
    };
    match files.map_or_else(Some, |authority| hint(text, authority.as_ref())) {
        Some(hint) => error.with(&hint),
        None => error,
    }
}

/// Reads the files, and gives that of the authorities, if one is named; or what is wrong with one of them.
async fn read_all(options: &PgConnectOptions) -> Result<Option<TlsFile>, String> {
    let authority = read(options, ("sslrootcert", "PGSSLROOTCERT")).await?;
    if let Some(file) = &authority {
        authorities(&file.pem).map_err(|problem| format!("{file} {problem}"))?;
    }
    let certificate = read(options, ("sslcert", "PGSSLCERT")).await?;
    let key = read(options, ("sslkey", "PGSSLKEY")).await?;
    match (certificate, key) {
        (None, None) => {}
        (Some(certificate), Some(key)) => certificate_with_key(&certificate.pem, &key.pem)
            .map_err(|problem| format!("{certificate} cannot be used with {key}: {problem}"))?,
        (Some(one), None) => {
            return Err(format!("{one} is named without sslkey: a certificate and its key go together"));
        }
        (None, Some(one)) => {
            return Err(format!("{one} is named without sslcert: a certificate and its key go together"));
        }
    }
    Ok(authority)
}

async fn read(options: &PgConnectOptions, names: (&'static str, &'static str)) -> Result<Option<TlsFile>, String> {
    // With the variables of the environment, which count where the address names nothing. The password in it stays here.
    let address = options.to_url_lossy();
    let Some((_, value)) = address.query_pairs().find(|(name, _)| name == names.0) else { return Ok(None) };
    let Some(path) = value.strip_prefix(FILE) else {
        return Ok(Some(TlsFile { names, path: String::new(), pem: value.as_bytes().to_vec() }));
    };
    match tokio::fs::read(path).await {
        Ok(pem) => Ok(Some(TlsFile { names, path: path.to_owned(), pem })),
        Err(error) => Err(format!("{} cannot be read: {error}", place(names, path))),
    }
}

/// What to do, where the library's words do not say it.
fn hint(text: &str, authority: Option<&TlsFile>) -> Option<String> {
    let hint = if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        match authority {
            Some(file) => format!("The server's certificate is not signed by an authority in {file}"),
            None => "The server's certificate is not signed by an authority that is trusted here: name its CA's certificate in database.url, as sslrootcert=FILE".to_owned(),
        }
    } else if text.contains("not valid for name") {
        "The server's certificate is not for the host in database.url: use a name that stands in it, or sslmode=verify-ca".to_owned()
    } else if text.contains("xpired") || text.contains("not valid yet") {
        "The time of a certificate is over or has not begun, or the clock of one of the two machines is wrong"
            .to_owned()
    } else if text.contains("server does not support TLS") {
        "Set ssl = on in postgresql.conf, or write sslmode=disable in database.url, which is not encrypted".to_owned()
    } else if text.contains("valid client certificate") || text.contains("CertificateRequired") {
        "Name this program's certificate and its key in database.url, as sslcert=FILE&sslkey=FILE".to_owned()
    } else if text.contains("received fatal alert") {
        "PostgreSQL does not take this program's certificate: sslcert and sslkey of database.url have to name one that is signed by an authority in its ssl_ca_file".to_owned()
    } else {
        return None;
    };
    Some(hint)
}
