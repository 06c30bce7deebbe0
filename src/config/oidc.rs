//! `[console]`: how people sign in to the console through the issuer of tokens.

use super::Oidc;
use super::error::SettingError;
use super::load::{Reader, origin};

impl Reader<'_> {
    /// `None` without a client id.
    pub(super) fn oidc(&self) -> Result<Option<Oidc>, SettingError> {
        const KEY: &str = "console.oidc_client_id";
        let scopes = self.text("console.oidc_scopes")?;
        if !scopes.0.split_ascii_whitespace().any(|scope| scope == "openid") {
            return self.wrong("console.oidc_scopes", scopes.1, "must have the scope openid among its words");
        }
        let parameters = self.text("console.oidc_parameters")?;
        let is_query =
            |text: &str| text.split('&').all(|pair| pair.split_once('=').is_some_and(|(key, _)| !key.is_empty()));
        if !parameters.0.is_empty() && (!is_query(parameters.0) || parameters.0.contains(char::is_whitespace)) {
            let problem = "must be written as in a query: name=value&name=value, with %20 for a space";
            return self.wrong("console.oidc_parameters", parameters.1, problem);
        }
        let more = self.items("console.oidc_origins", plain_origin)?;
        let Some(client_id) = self.optional(KEY)? else { return Ok(None) };
        let Some(issuer) = self.optional("auth.issuer")? else {
            return self.wrong(
                KEY,
                self.layers.get(KEY)?,
                "needs auth.issuer: the address of the issuer to sign in at",
            );
        };
        if self.optional("auth.jwks_url")?.is_none() && self.optional("auth.jwks_file")?.is_none() {
            let problem = "needs auth.jwks_url (or auth.jwks_file): without the issuer's keys its tokens are not taken";
            return self.wrong(KEY, self.layers.get(KEY)?, problem);
        }
        let Some(first) = secure_origin(&issuer) else {
            let problem = "must be an https:// address where console.oidc_client_id is set (http:// on this machine alone): \
                 the console reads what the issuer says of itself there";
            return self.wrong("auth.issuer", self.layers.get("auth.issuer")?, problem);
        };
        let mut origins = vec![first];
        origins.extend(more);
        Ok(Some(Oidc {
            issuer,
            client_id,
            scopes: scopes.0.split_ascii_whitespace().collect::<Vec<_>>().join(" "),
            parameters: parameters.0.to_owned(),
            origins,
        }))
    }
}

/// The origin of an address over which a code and tokens may travel: with TLS, or within this machine.
fn secure_origin(address: &str) -> Option<String> {
    let uri: http::Uri = address.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let is_here = matches!(authority.host(), "localhost" | "127.0.0.1" | "[::1]");
    let fits = uri.query().is_none() && (scheme == "https" || (scheme == "http" && is_here));
    fits.then(|| plain_origin(&format!("{scheme}://{authority}")).ok()).flatten()
}

/// An origin that stands in the policy of the page: with nothing in it that would end a directive there.
fn plain_origin(text: &str) -> Result<String, String> {
    let origin = origin(text)?;
    let is_plain = origin.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:/[]".contains(&b));
    if is_plain { Ok(origin) } else { Err(format!("{text:?} has characters that no host has")) }
}
