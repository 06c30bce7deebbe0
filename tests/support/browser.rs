//! A headless Chromium with one page, driven over its DevTools protocol.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::socket::{PATIENCE, Socket};

/// What it is called, where it is installed.
const NAMES: [&str; 6] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/// One browser with one page; gone when dropped.
pub struct Browser {
    _chromium: Chromium,
    _profile: tempfile::TempDir,
    devtools: Socket,
    session: String,
    asked: u64,
}

impl Browser {
    /// Starts it and opens a page.
    pub async fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let chromium = Chromium::start(profile.path());
        let mut browser = Self {
            devtools: Socket::open(&devtools(profile.path()).await).await,
            _chromium: chromium,
            _profile: profile,
            session: String::new(),
            asked: 0,
        };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        browser.ask("Page.navigate", json!({ "url": url })).await;
        browser
    }

    /// What a JavaScript expression gives on the page.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.ask("Runtime.evaluate", asked).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, what: &str, expression: &str) {
        let begun = Instant::now();
        while self.eval(expression).await != json!(true) {
            if begun.elapsed() > PATIENCE {
                panic!("never: {what}; the page says:\n{}", self.eval("document.body.innerText").await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A script that runs in each new page before its own.
    pub async fn before(&mut self, source: &str) {
        self.ask("Page.enable", json!({})).await;
        self.ask("Page.addScriptToEvaluateOnNewDocument", json!({ "source": source })).await;
    }

    /// Opens another page.
    pub async fn navigate(&mut self, url: &str) {
        self.ask("Page.navigate", json!({ "url": url })).await;
    }

    async fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.devtools.send(message).await;
        let answer = self.devtools.until_that(|answer| answer["id"] == json!(id)).await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }
}

/// The processes of the browser.
struct Chromium(Child);

impl Drop for Chromium {
    fn drop(&mut self) {
        // With all the processes it has started: they are in its group.
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

impl Chromium {
    fn start(profile: &std::path::Path) -> Self {
        use std::os::unix::process::CommandExt;
        for name in NAMES {
            let started = Command::new(name)
                .args(["--headless", "--disable-gpu", "--disable-quic", "--disable-sync", "--disable-dev-shm-usage"])
                .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
                // Root has no sandbox, and nothing but our own page is opened.
                .args(["--no-sandbox", "--remote-debugging-port=0"])
                .arg(format!("--user-data-dir={}", profile.display()))
                .arg("about:blank")
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            match started {
                Ok(child) => return Self(child),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("cannot start {name}: {error}"),
            }
        }
        panic!("no Chromium is here: install it with `make deps` (Debian: apt-get install chromium)")
    }
}

/// Where it listens: it writes that into its profile.
async fn devtools(profile: &std::path::Path) -> String {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let said = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = said.trim_end().split_once('\n') {
            return format!("ws://127.0.0.1:{port}{path}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("Chromium did not start");
}
