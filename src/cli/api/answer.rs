//! Whether an answer is a gateway's. Whatever listens at a wrong address may answer 200 to everything: a page, an empty
//! object, another service's JSON. Nothing of that may pass for "accepted" or for an empty list, so an answer counts
//! only when it has the content type and all the fields that a gateway's has.

use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Response, StatusCode, header};
use serde::de::DeserializeOwned;

use super::object::Object;
use super::unreachable::Unreachable;
use crate::domain::printable;

/// Longest answer that is read.
const MAX_BODY: usize = 256 * 1024 * 1024;
/// So much of an answer that is no gateway's is read.
const MAX_FOREIGN: usize = 4 * 1024;
/// Characters of it that are shown.
const SHOWN: usize = 80;

/// What came back.
pub(in crate::cli) struct Answer {
    base: String,
    status: StatusCode,
    content_type: String,
    location: Option<String>,
    body: Vec<u8>,
}

/// A typed answer, and the same as it came.
pub(in crate::cli) struct Told<T> {
    pub(in crate::cli) is: T,
    pub(in crate::cli) json: Object,
}

impl Answer {
    /// Reads it to its end: of one that cannot be a gateway's only the beginning.
    pub(super) async fn read(answer: Response<Incoming>, base: &str, patience: Duration) -> anyhow::Result<Self> {
        let header = |name| {
            let value = answer.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut read = Self {
            base: base.to_owned(),
            status: answer.status(),
            content_type: header(header::CONTENT_TYPE).unwrap_or_default(),
            location: header(header::LOCATION),
            body: Vec::new(),
        };
        let is_foreign = !read.is_json();
        let mut body = Limited::new(answer.into_body(), MAX_BODY);
        // A body that trickles must not hold a command up for ever; a large one may take a while.
        let collect = async {
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame?.into_data() {
                    read.body.extend_from_slice(&data);
                }
                if is_foreign && read.body.len() >= MAX_FOREIGN {
                    break;
                }
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        match tokio::time::timeout(patience * 4, collect).await {
            Ok(Ok(())) => Ok(read),
            // The beginning is enough to say what answers.
            Ok(Err(_)) | Err(_) if is_foreign => Ok(read),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                anyhow::bail!("the answer of {base} is longer than {} MiB", MAX_BODY / 1024 / 1024)
            }
            Ok(Err(_)) => Err(Unreachable::error(format!(
                "the answer of {base} broke off after {} bytes; what was asked may have been done",
                read.body.len()
            ))),
            Err(_) => Err(Unreachable::silent(base, patience * 4)),
        }
    }

    fn is_json(&self) -> bool {
        let essence = self.content_type.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    }

    /// The body, whatever object it is, or the gateway's error in one line.
    pub(in crate::cli) fn good(self) -> anyhow::Result<Object> {
        Ok(self.told_that(|_: &Object| Ok(()))?.json)
    }

    /// The body as what it must be, or the gateway's error in one line. The check names what must hold beyond what the
    /// type says.
    pub(in crate::cli) fn told_that<T: DeserializeOwned>(
        self,
        check: impl FnOnce(&T) -> Result<(), String>,
    ) -> anyhow::Result<Told<T>> {
        if !self.status.is_success() {
            return Err(self.refusal());
        }
        if !self.is_json() {
            return Err(self.is_no_gateway(""));
        }
        let read = || -> Result<Told<T>, String> {
            let json = Object::parse(&self.body)?;
            let is = serde_json::from_slice::<T>(&self.body).map_err(|error| error.to_string())?;
            check(&is)?;
            Ok(Told { is, json })
        };
        read().map_err(|problem| self.is_no_gateway(&problem))
    }

    /// Why it was refused, in the gateway's own words if it is one.
    fn refusal(&self) -> anyhow::Error {
        #[derive(serde::Deserialize)]
        struct Refusal {
            error: String,
            message: String,
            retry_after: Option<u64>,
        }
        let away = matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        let refusal = self.is_json().then(|| serde_json::from_slice::<Refusal>(&self.body).ok()).flatten();
        let message = match refusal {
            Some(Refusal { error, message, retry_after: Some(seconds) }) => {
                format!("{message}; try again in {seconds} s ({error})")
            }
            Some(Refusal { error, message, retry_after: None }) => format!("{message} ({error})"),
            // What a proxy says whose gateway is away.
            None if away => {
                format!("no gateway answers at {}, something before it does: {}", self.base, self.described())
            }
            None => return self.is_no_gateway(""),
        };
        if away { Unreachable::error(message) } else { anyhow::Error::msg(message) }
    }

    /// The error that says what answered instead of a gateway, and `why` that is none where it is not plain to see.
    pub(super) fn is_no_gateway(&self, why: &str) -> anyhow::Error {
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        no_gateway(&self.base, &format!("it answered {}{why}", self.described()))
    }

    /// Status, content type and first characters.
    fn described(&self) -> String {
        let mut message = self.status.to_string();
        if let Some(location) = self.location.as_deref().filter(|_| self.status.is_redirection()) {
            return format!("{message}, which leads to {}", shortened(location));
        }
        if self.content_type.is_empty() {
            message.push_str(", no content type");
        } else {
            message.push_str(&format!(", {}", shortened(&self.content_type)));
        }
        if self.body.is_empty() {
            return message + ", nothing in it";
        }
        // Broken in the middle of a character at worst, which then shows as one that cannot be read.
        let beginning = String::from_utf8_lossy(&self.body[..self.body.len().min(MAX_FOREIGN)]);
        let one_line = beginning.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{message}: {}", shortened(&one_line))
    }
}

/// The error that names the address and what its server did.
pub(super) fn no_gateway(base: &str, what_it_did: &str) -> anyhow::Error {
    anyhow::anyhow!("what answers at {base} is no Wheelhouse gateway: {what_it_did}")
}

fn shortened(text: &str) -> String {
    let shown = printable(text);
    match shown.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown.into_owned(),
    }
}
