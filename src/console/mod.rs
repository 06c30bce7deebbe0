//! The operator's page: hand-written HTML, CSS and ES modules, built into the binary. `client.js` alone is made from
//! something: it is `clients/typescript`, as any page uses it (docs/decisions/0014-console-client.md).
//!
//! It holds no secrets and needs no token to load; what it shows, it asks the gateway's public API for, with
//! the token the operator has. Nothing is loaded from anywhere else, and the headers make sure of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;

use crate::config::Oidc;

/// What the page may do: its own scripts and styles, its own gateway, the issuer where people sign in through it, and
/// nothing else. No inline script, no `eval`, no HTML made from text (so a job's title can never become markup), no frame
/// around it.
fn content_policy(oidc: Option<&Oidc>) -> String {
    let issuer: String = oidc.iter().flat_map(|oidc| &oidc.origins).map(|origin| format!(" {origin}")).collect();
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{issuer}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
}

/// Where the page reads how to sign in.
const SIGN_IN: &str = "/assets/sign-in.json";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JSON: &str = "application/json";

/// One file of the page.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Its text.
    pub body: &'static str,
}

macro_rules! asset {
    ($path:literal, $file:literal, $kind:expr) => {
        Asset { path: $path, content_type: $kind, body: include_str!(concat!("assets/", $file)) }
    };
}

/// Every file of the page.
pub const ASSETS: &[Asset] = &[
    asset!("/", "index.html", HTML),
    asset!("/assets/base.css", "base.css", CSS),
    asset!("/assets/rows.css", "rows.css", CSS),
    asset!("/assets/pages.css", "pages.css", CSS),
    asset!("/assets/icon.svg", "icon.svg", SVG),
    asset!("/assets/actions.js", "actions.js", JS),
    asset!("/assets/activity.js", "activity.js", JS),
    asset!("/assets/batch.js", "batch.js", JS),
    asset!("/assets/chart.js", "chart.js", JS),
    asset!("/assets/client.js", "client.js", JS),
    asset!("/assets/commands.js", "commands.js", JS),
    asset!("/assets/dom.js", "dom.js", JS),
    asset!("/assets/facts.js", "facts.js", JS),
    asset!("/assets/header.js", "header.js", JS),
    asset!("/assets/history.js", "history.js", JS),
    asset!("/assets/json.js", "json.js", JS),
    asset!("/assets/list.js", "list.js", JS),
    asset!("/assets/listpage.js", "listpage.js", JS),
    asset!("/assets/live.js", "live.js", JS),
    asset!("/assets/main.js", "main.js", JS),
    asset!("/assets/messages.js", "messages.js", JS),
    asset!("/assets/names.js", "names.js", JS),
    asset!("/assets/operators.js", "operators.js", JS),
    asset!("/assets/oidc.js", "oidc.js", JS),
    asset!("/assets/output.js", "output.js", JS),
    asset!("/assets/overview.js", "overview.js", JS),
    asset!("/assets/resource.js", "resource.js", JS),
    asset!("/assets/router.js", "router.js", JS),
    asset!("/assets/row.js", "row.js", JS),
    asset!("/assets/schedule.js", "schedule.js", JS),
    asset!("/assets/session.js", "session.js", JS),
    asset!("/assets/sign-in.js", "sign-in.js", JS),
    asset!("/assets/table.js", "table.js", JS),
    asset!("/assets/upcoming.js", "upcoming.js", JS),
    asset!("/assets/waiting.js", "waiting.js", JS),
    asset!("/assets/work.js", "work.js", JS),
];

/// The entity tags of [`ASSETS`], in the same order.
static ETAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| ASSETS.iter().map(etag).collect());

/// Changes whenever the bytes do; the same on every replica of one release.
fn etag(asset: &Asset) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    asset.body.hash(&mut hasher);
    let text = format!("\"{:016x}-{:x}\"", hasher.finish(), asset.body.len());
    // Hexadecimal digits always fit; an empty etag would only cost a cache hit.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// What depends on the settings.
struct Console {
    policy: HeaderValue,
    /// The text of [`SIGN_IN`].
    sign_in: String,
}

impl Console {
    fn new(oidc: Option<&Oidc>) -> Self {
        let sign_in = oidc.map(|oidc| {
            json!({
                "issuer": oidc.issuer,
                "client_id": oidc.client_id,
                "scopes": oidc.scopes,
                "parameters": oidc.parameters,
            })
        });
        Self {
            // The settings' origins are plain letters, so this never happens; if it did, nothing would be allowed.
            policy: HeaderValue::from_str(&content_policy(oidc))
                .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
            sign_in: json!({ "oidc": sign_in }).to_string(),
        }
    }
}

/// Answers `/` and everything under `/assets/`; passes all else on. `oidc`: how people sign in beside pasting a token.
pub fn routes(oidc: Option<&Oidc>) -> BoxedFilter<(Response,)> {
    let console = Arc::new(Console::new(oidc));
    let ours = warp::path::full().and_then(async |path: FullPath| {
        let text = path.as_str();
        if text == "/" || text.starts_with("/assets/") { Ok(path) } else { Err(warp::reject::not_found()) }
    });
    let query = warp::query::raw().map(|_| true).or(warp::any().map(|| false)).unify();
    ours.and(warp::method())
        .and(query)
        .and(warp::header::headers_cloned())
        .map(move |path: FullPath, method: Method, query: bool, headers: HeaderMap| {
            // What is no text is no etag of ours: the page is sent.
            let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
            let mut response = answer(&console, path.as_str(), &method, query, known);
            response.headers_mut().insert(CONTENT_SECURITY_POLICY, console.policy.clone());
            response
        })
        .boxed()
}

fn answer(console: &Console, path: &str, method: &Method, has_query: bool, known: Option<&str>) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let mut response = text_response(StatusCode::METHOD_NOT_ALLOWED, "This path takes GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if path == SIGN_IN {
        let mut response = Response::new(console.sign_in.clone().into());
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        return secured(response);
    }
    let Some((asset, etag)) = ASSETS.iter().zip(ETAGS.iter()).find(|(asset, _)| asset.path == path) else {
        return text_response(StatusCode::NOT_FOUND, "The console has no such file; it starts at /\n");
    };
    // A query may hold a token: such an answer must not be kept under its address.
    let unchanged = !has_query && known.is_some_and(|known| is_among(etag, known));
    let mut response = if unchanged {
        with_status(StatusCode::NOT_MODIFIED, Response::new(Default::default()))
    } else {
        Response::new(asset.body.into())
    };
    let headers = response.headers_mut();
    if has_query {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    } else {
        // Kept, but asked about each time: after an upgrade no old module meets a new page.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(ETAG, etag.clone());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    secured(response)
}

/// Whether an `If-None-Match` names the etag. A proxy that compresses makes a weak etag of it.
fn is_among(etag: &HeaderValue, known: &str) -> bool {
    known == "*" || known.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t.as_bytes() == etag.as_bytes())
}

fn text_response(status: StatusCode, text: &'static str) -> Response {
    let mut response = with_status(status, Response::new(text.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    secured(response)
}

fn with_status(status: StatusCode, mut response: Response) -> Response {
    *response.status_mut() = status;
    response
}

fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // The address of the page may hold a token until its script has taken it out.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}
