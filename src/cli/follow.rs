//! `--follow` and `submit --wait`: watches a resource on its socket until it has ended.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::api::rows::Row;
use super::api::{Api, Object, Unreachable};
use super::out::{self, say, tell};
use crate::domain::{ResourceId, ResourceKind, printable};

/// How long a gateway may be away: longer than a rolling restart takes, or a proxy to find another.
const GATEWAY_AWAY_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two tries to reach one.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Longest silence on a socket: a gateway sends a ping every 30 s.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(75);

/// Shows how far it is until it has ended; 0 if it completed.
pub(super) async fn follow(
    api: &Api,
    kind: ResourceKind,
    id: &ResourceId,
    as_json: bool,
    mut patience: RetryBudget,
) -> anyhow::Result<ExitCode> {
    let mut shown = ShownState::new(kind, id, as_json);
    loop {
        match watch(api, kind, id, &mut shown, &mut patience).await {
            Ok(row) => return Ok(shown.end(&row)),
            Err(error) => {
                shown.waits();
                patience.record_failure(error).await?;
            }
        }
    }
}

/// With gateways that are away for a moment, while somebody waits.
#[derive(Debug, Default)]
pub(super) struct RetryBudget {
    /// Since when none answers.
    away: Option<Instant>,
    /// None has ever answered: what is wrong then will not pass.
    new: bool,
}

impl RetryBudget {
    /// Where nothing was asked before.
    pub(super) fn new() -> Self {
        Self { away: None, new: true }
    }

    /// One has answered.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Waits before another try; gives the error back where trying again is no use, or has been for too long.
    pub(super) async fn record_failure(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        let since = *self.away.get_or_insert_with(Instant::now);
        if self.new || !error.is::<Unreachable>() || since.elapsed() > GATEWAY_AWAY_TIMEOUT {
            return Err(error);
        }
        tokio::time::sleep(RETRY_DELAY).await;
        Ok(())
    }
}

/// Tells whoever waits when no worker is alive any more, and when one is again.
#[derive(Debug, Default)]
pub(super) struct Workers {
    told_of_none: bool,
}

impl Workers {
    /// So many are alive; `above` writes a line above what is shown meanwhile.
    pub(super) fn record(&mut self, online: i64, above: impl FnOnce(&dyn Fn())) {
        if self.told_of_none == (online == 0) {
            return;
        }
        self.told_of_none = online == 0;
        above(&|| match online {
            0 => tell!("no worker is online: commands and queued jobs wait until one is back"),
            1 => tell!("a worker is online again"),
            _ => tell!("{online} workers are online again"),
        });
    }
}

/// One connection; gives the row of what has ended.
async fn watch(
    api: &Api,
    kind: ResourceKind,
    id: &ResourceId,
    shown: &mut ShownState<'_>,
    patience: &mut RetryBudget,
) -> anyhow::Result<Object> {
    let (plural, singular) = (kind.plural(), kind.as_str());
    let path = format!("/api/v1/{plural}/{id}");
    let mut socket = api.socket(&format!("/api/v1/realtime/ws/{plural}/{id}")).await?;
    let mut row = Object::default();
    loop {
        let longest = if row.is_empty() { api.answer_timeout() } else { SILENCE_TIMEOUT };
        let text = match tokio::time::timeout(longest, socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => text,
            Ok(Some(Ok(Message::Binary(_)))) => return Err(api.no_gateway("it sends binary messages on its socket")),
            Ok(Some(Ok(_))) => continue,
            Ok(Some(Err(_)) | None) => break,
            Err(_) if row.is_empty() => {
                let seconds = longest.as_secs();
                return Err(api.no_gateway(&format!("it opened a WebSocket and told no state for {seconds} s")));
            }
            Err(_) => break,
        };
        let mut message = Object::parse(text.as_bytes()).unwrap_or_default();
        // Not of the resource, so it stands in no row; in a snapshot as in the message of that name.
        let online = message.number("workers_online").and_then(|online| i64::try_from(online).ok());
        message.remove("workers_online");
        let said = message.text("type").unwrap_or_default();
        match said.strip_prefix(singular).unwrap_or_default() {
            "_snapshot" => {
                if let Err(problem) = message.read::<Row>().and_then(|read| read.is_of(id)) {
                    return Err(api.no_gateway(&format!("the snapshot on its socket is none ({problem})")));
                }
                patience.reset();
                row = message;
            }
            // A gateway says nothing else before the snapshot.
            _ if row.is_empty() && said == "subscribed" => continue,
            _ if row.is_empty() => {
                let beginning: String = text.chars().take(80).collect();
                return Err(api.no_gateway(&format!("on its socket it said {beginning}")));
            }
            // Only said while it is so.
            "_status" => {
                row.remove("desired");
                row.merge(message);
            }
            "_progress" => row.merge(message),
            _ if said == "workers_online" => {
                if let Some(online) = online {
                    shown.workers(online);
                }
                continue;
            }
            _ => continue,
        }
        if matches!(row.text("status").as_deref(), Some("completed" | "failed" | "cancelled")) {
            // How it ended does not travel on the socket.
            return Ok(api.get(&path).await?.told_that(|row: &Row| row.is_of(id))?.json);
        }
        shown.update(&row);
        if let Some(online) = online {
            shown.workers(online);
        }
    }
    // Closed: over plain HTTP it is said why, if there is more to it than a gateway that leaves.
    api.get(&path).await?.told_that(|row: &Row| row.is_of(id))?;
    Err(Unreachable::closed())
}

/// What the user sees of it.
struct ShownState<'a> {
    kind: ResourceKind,
    id: &'a ResourceId,
    /// On a terminal.
    bar: Option<ProgressBar>,
    as_json: bool,
    last: Value,
    is_away: bool,
    workers: Workers,
}

impl<'a> ShownState<'a> {
    fn new(kind: ResourceKind, id: &'a ResourceId, as_json: bool) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(100));
        if let Some(bar) = &bar {
            let style = ProgressStyle::with_template("{bar:40} {pos:>3}%  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        Self { kind, id, bar, as_json, last: Value::Null, is_away: false, workers: Workers::default() }
    }

    fn waits(&mut self) {
        match &self.bar {
            Some(bar) => bar.set_message("no gateway answers; trying again"),
            None if !self.is_away && !self.last.is_null() => tell!("no gateway answers; trying again"),
            None => {}
        }
        self.is_away = true;
    }

    fn workers(&mut self, online: i64) {
        let bar = &self.bar;
        self.workers.record(online, |line| match bar {
            Some(bar) => bar.suspend(line),
            None => line(),
        });
    }

    fn update(&mut self, row: &Object) {
        self.is_away = false;
        let text = |name: &str| row.text(name).unwrap_or_default();
        let percent = row.number("progress_percent").unwrap_or(0);
        let desired = row.text("desired").map(|d| format!(" (to be {d})")).unwrap_or_default();
        if let Some(bar) = &self.bar {
            bar.set_position(percent);
            let message = format!("{}{desired}  {}", text("status"), text("current_item"));
            bar.set_message(printable(&message).into_owned());
        } else if !self.as_json && self.has_changed(row) {
            // On standard error: standard output has how it ended, and nothing else.
            tell!("{} {} is {}{desired}, {percent}%", self.kind.as_str(), self.id, text("status"));
        }
        self.print(row);
    }

    fn has_changed(&self, row: &Object) -> bool {
        Self::comparable(row) != self.last
    }

    /// What a change is a change of.
    fn comparable(row: &Object) -> Value {
        json!([row.text("status"), row.number("progress_percent"), row.text("desired")])
    }

    fn print(&mut self, row: &Object) {
        if self.as_json && self.has_changed(row) {
            let mut row = row.clone();
            // As `job show --json` prints it.
            row.remove("type");
            if row.get("desired").is_none() {
                row.remove("desired");
            }
            out::json(&row);
        }
        self.last = Self::comparable(row);
    }

    fn end(&mut self, row: &Object) -> ExitCode {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let status = row.text("status").unwrap_or_default();
        self.print(row);
        if !self.as_json {
            let why = row.text("error_message").map(|e| format!(": {e}")).unwrap_or_default();
            say!("{} {} {status}{why}", self.kind.as_str(), self.id);
        }
        if status == "completed" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
