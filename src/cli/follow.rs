//! `--follow` and `submit --wait`: watches a resource on its socket until it has ended.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::api::{Api, Away};
use crate::domain::{ResourceId, ResourceKind};

/// How long a gateway may be away: longer than a rolling restart takes, or a proxy to find another.
const AWAY: Duration = Duration::from_secs(30);
/// Between two tries to reach one.
const AGAIN: Duration = Duration::from_millis(500);

/// Shows how far it is until it has ended; 0 if it completed.
pub(super) async fn follow(api: &Api, kind: ResourceKind, id: &ResourceId, as_json: bool) -> anyhow::Result<ExitCode> {
    let (mut shown, mut patience) = (Shown::new(as_json), Patience::default());
    loop {
        match watch(api, kind, id, &mut shown, &mut patience).await {
            Ok(row) => return Ok(shown.end(kind, id, &row)),
            Err(error) => {
                shown.waits();
                patience.bear(error).await?;
            }
        }
    }
}

/// With gateways that are away for a moment, while somebody waits.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<Instant>);

impl Patience {
    /// One has answered.
    pub(super) fn renew(&mut self) {
        self.0 = None;
    }

    /// Waits before another try; gives the error back where trying again is no use, or has been for too long.
    pub(super) async fn bear(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        let since = *self.0.get_or_insert_with(Instant::now);
        if !error.is::<Away>() || since.elapsed() > AWAY {
            return Err(error);
        }
        tokio::time::sleep(AGAIN).await;
        Ok(())
    }
}

/// One connection; gives the row of what has ended.
async fn watch(
    api: &Api,
    kind: ResourceKind,
    id: &ResourceId,
    shown: &mut Shown,
    patience: &mut Patience,
) -> anyhow::Result<Value> {
    let (plural, word) = (kind.plural(), kind.word());
    let mut socket = api.socket(&format!("/api/v1/realtime/ws/{plural}/{id}")).await?;
    let mut row = Value::Null;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let Ok(message) = serde_json::from_str::<Value>(&text) else { continue };
        let told = message["type"].as_str().and_then(|kind| kind.strip_prefix(word)).unwrap_or_default();
        match told {
            "_snapshot" => {
                patience.renew();
                row = message;
            }
            // Only said while it is so.
            "_status" => {
                row["desired"] = Value::Null;
                merge(&mut row, message);
            }
            "_progress" => merge(&mut row, message),
            _ => continue,
        }
        if matches!(row["status"].as_str(), Some("completed" | "failed" | "cancelled")) {
            // How it ended does not travel on the socket.
            return api.get(&format!("/api/v1/{plural}/{id}")).await?.good();
        }
        shown.update(&row);
    }
    // Closed: over plain HTTP it is said why, if there is more to it than a gateway that leaves.
    api.get(&format!("/api/v1/{plural}/{id}")).await?.good()?;
    Err(Away::closed().into())
}

fn merge(row: &mut Value, message: Value) {
    let Value::Object(fields) = message else { return };
    for (name, value) in fields {
        row[name] = value;
    }
}

/// What the user sees of it.
struct Shown {
    bar: ProgressBar,
    as_json: bool,
    last: Value,
}

impl Shown {
    fn new(as_json: bool) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(100) } else { ProgressBar::hidden() };
        bar.set_style(
            ProgressStyle::with_template("{bar:40} {pos:>3}%  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar, as_json, last: Value::Null }
    }

    fn waits(&self) {
        self.bar.set_message("no gateway answers; trying again");
    }

    fn update(&mut self, row: &Value) {
        self.bar.set_position(row["progress_percent"].as_u64().unwrap_or(0));
        let (status, item) =
            (row["status"].as_str().unwrap_or_default(), row["current_item"].as_str().unwrap_or_default());
        let desired = row["desired"].as_str().map(|d| format!(" (to be {d})")).unwrap_or_default();
        self.bar.set_message(format!("{status}{desired}  {item}"));
        self.print(row);
    }

    fn print(&mut self, row: &Value) {
        let now = json!([row["status"], row["progress_percent"], row["desired"]]);
        if self.as_json && now != self.last {
            let mut row = row.clone();
            // As `job show --json` prints it.
            if let Some(fields) = row.as_object_mut() {
                fields.remove("type");
                fields.retain(|name, value| name != "desired" || !value.is_null());
            }
            println!("{row}");
        }
        self.last = now;
    }

    fn end(&mut self, kind: ResourceKind, id: &ResourceId, row: &Value) -> ExitCode {
        self.bar.finish_and_clear();
        let status = row["status"].as_str().unwrap_or_default();
        self.print(row);
        if !self.as_json {
            let why = row["error_message"].as_str().map(|e| format!(": {e}")).unwrap_or_default();
            println!("{} {id} {status}{why}", kind.word());
        }
        if status == "completed" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
