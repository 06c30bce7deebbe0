//! Throws made-up input at everything that reads what others wrote: `make fuzz`, a minute of each target.
//!
//! `fuzz TARGET SECONDS`, or `fuzz all SECONDS`. Each input is one of `fuzz/corpus/TARGET` after some changes: bits, bytes,
//! pieces of others, words that mean something. Whatever makes a reader panic, or breaks what is promised of it, is written
//! to `fuzz/found` and ends the run with 1; put it into the corpus once it is mended. It needs no nightly compiler, and so
//! is not led by which code an input has reached, as cargo-fuzz would be: the corpus has one input for each form instead.

use std::cell::{OnceCell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wheelhouse::auth::Verifier;
use wheelhouse::broker::scripts::fuzzing::{read_stored, reading_script};
use wheelhouse::config::{self, PublishedChannels, Settings};
use wheelhouse::domain::ResourceKind;
use wheelhouse::protocol::{FeedFilter, parse, parse_tenant, tenant, worker};

const SECRET: &str = "a-key-for-made-up-tokens-of-more-than-32-bytes";
const LONGEST: usize = 4 * 1024;
/// Between two looks at the clock.
const BATCH: u64 = 256;
/// Words that mean something to one reader or another.
const WORDS: [&str; 28] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    "null",
    "true",
    "-1",
    "1e999",
    "0.1",
    "18446744073709551616",
    "\\u0000",
    "\\ud800",
    "\u{202e}",
    "\u{7f}",
    "type",
    "job_id",
    "tenant_id",
    "request_id",
    "run_at",
    "9999-12-31T23:59:59Z",
    "|",
    "..",
    "%00",
    "*",
    "redis+cluster://",
];

/// What is promised of an input; an error says what was broken.
type Target = Box<dyn Fn(&[u8]) -> Result<(), String>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (name, seconds) = (arguments.next(), arguments.next().and_then(|seconds| seconds.parse().ok()));
    let (Some(name), Some(seconds)) = (name, seconds) else {
        eprintln!("fuzz TARGET|all SECONDS");
        return ExitCode::from(2);
    };
    // A panic is caught and said with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let mut sum = 0;
    let chosen: Vec<(&str, Target)> = targets().into_iter().filter(|(own, _)| name == "all" || *own == name).collect();
    if chosen.is_empty() {
        eprintln!("there is no target {name}");
        return ExitCode::from(2);
    }
    for (name, target) in chosen {
        match run(name, &target, Duration::from_secs(seconds)) {
            Ok(inputs) => {
                println!("{name}: {inputs} inputs in {seconds} s, nothing found");
                sum += inputs;
            }
            Err(problem) => {
                println!("{name}: {problem}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{sum} inputs");
    ExitCode::SUCCESS
}

fn run(name: &str, target: &Target, time: Duration) -> Result<u64, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut corpus = Vec::new();
    for entry in std::fs::read_dir(folder.join("corpus").join(name)).map_err(|error| error.to_string())? {
        corpus
            .push(std::fs::read(entry.map_err(|error| error.to_string())?.path()).map_err(|error| error.to_string())?);
    }
    corpus.sort();
    let try_one = |input: &[u8]| {
        let tried = catch_unwind(AssertUnwindSafe(|| target(input)));
        let problem = match tried {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(problem)) => problem,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                format!("it panicked: {}", text.unwrap_or_default())
            }
        };
        let found = folder.join("found");
        let file: PathBuf = found.join(format!("{name}-{:016x}", fastrand::u64(..)));
        let kept = std::fs::create_dir_all(&found).and_then(|()| std::fs::write(&file, input));
        kept.map_err(|error| error.to_string())?;
        Err(format!("{problem}; the input is in {}", file.display()))
    };
    let (begun, mut inputs) = (Instant::now(), corpus.len() as u64);
    corpus.iter().try_for_each(|input| try_one(input))?;
    let mut input = Vec::with_capacity(LONGEST);
    while begun.elapsed() < time {
        for _ in 0..BATCH {
            made_up(&corpus, &mut input);
            try_one(&input)?;
        }
        inputs += BATCH;
    }
    Ok(inputs)
}

/// One of the corpus, changed once or a few times.
fn made_up(corpus: &[Vec<u8>], input: &mut Vec<u8>) {
    let any = || &corpus[fastrand::usize(..corpus.len())];
    input.clear();
    input.extend_from_slice(any());
    for _ in 0..=fastrand::usize(..6) {
        let at = fastrand::usize(..=input.len());
        let end = at + fastrand::usize(..=(input.len() - at).min(16));
        match fastrand::u8(..8) {
            0 if at < input.len() => input[at] ^= 1 << fastrand::u8(..8),
            1 if at < input.len() => input[at] = fastrand::u8(..),
            2 => drop(input.drain(at..end)),
            3 => drop(input.splice(at..at, WORDS[fastrand::usize(..WORDS.len())].bytes())),
            4 => drop(input.splice(at..end, WORDS[fastrand::usize(..WORDS.len())].bytes())),
            5 => {
                let other = any();
                let from = fastrand::usize(..=other.len());
                let to = from + fastrand::usize(..=other.len() - from);
                input.splice(at..at, other[from..to].iter().copied());
            }
            6 => {
                let piece = input[at..end].to_vec();
                let times = fastrand::usize(1..64);
                input.splice(at..at, piece.iter().copied().cycle().take(piece.len() * times));
            }
            _ => input.truncate(at.max(1)),
        }
        input.truncate(LONGEST);
    }
}

fn targets() -> Vec<(&'static str, Target)> {
    vec![
        ("frame", Box::new(frame)),
        ("filter", Box::new(filter)),
        ("token", with_verifier(token)),
        ("claims", with_verifier(claims)),
        ("settings", Box::new(settings)),
        ("record", Box::new(record)),
        ("script", script()),
    ]
}

/// Frames of clients and of foreign workers. A message may be refused, and its refusal may quote it: it is sent as JSON.
fn frame(input: &[u8]) -> Result<(), String> {
    let (Ok(text), Ok(id)) = (std::str::from_utf8(input), "j1".parse()) else { return Ok(()) };
    for kind in ResourceKind::ALL {
        let _ = parse(text, kind, &id);
    }
    let _ = parse_tenant(text);
    let _ = tenant::parse_batch(text);
    let _ = worker::read(text);
    Ok(())
}

/// A filter that is shown and read again is the same.
fn filter(input: &[u8]) -> Result<(), String> {
    let Ok(value) = serde_json::from_slice::<Value>(input) else { return Ok(()) };
    let Ok(read) = FeedFilter::read(Some(&value)) else { return Ok(()) };
    match FeedFilter::read(Some(&read.to_json())) {
        Ok(again) if again == read => Ok(()),
        again => Err(format!("{read:?} became {again:?}")),
    }
}

/// Whoever does not know the key gets no caller: the input is a token, or its first part, or its first two.
fn token(verifier: &Verifier, runtime: &tokio::runtime::Runtime, input: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(input);
    let claims = base64(b"{\"sub\":\"ann\",\"tenant_id\":\"acme\",\"exp\":4102444800}");
    let signature = base64(&[7; 32]);
    for token in [
        text.clone().into_owned(),
        format!("{}.{claims}.{signature}", base64(input)),
        format!("{text}.{claims}.{signature}"),
        format!("{}.{claims}.", base64(input)),
    ] {
        if let Ok(caller) = runtime.block_on(verifier.verify(&token)) {
            return Err(format!("{token} was taken for {caller:?}"));
        }
    }
    Ok(())
}

/// Signed with the right key, whatever the claims are: a caller has a user and a tenant that are ids.
fn claims(verifier: &Verifier, runtime: &tokio::runtime::Runtime, input: &[u8]) -> Result<(), String> {
    let signed = format!("{}.{}", base64(b"{\"typ\":\"JWT\",\"alg\":\"HS256\"}"), base64(input));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), signed.as_bytes());
    let token = format!("{signed}.{}", base64(signature.as_ref()));
    let _ = runtime.block_on(verifier.verify_worker(&token, Duration::from_secs(86_400)));
    if let Ok(caller) = runtime.block_on(verifier.verify(&token))
        && (caller.user.as_str().is_empty() || caller.tenant.as_str().contains([':', '*']))
    {
        return Err(format!("{caller:?} was let in"));
    }
    Ok(())
}

/// A file of settings, and the same text as a value. An error is one line and shows no password.
fn settings(input: &[u8]) -> Result<(), String> {
    thread_local! {
        static FILE: RefCell<Option<tempfile::NamedTempFile>> = const { RefCell::new(None) };
    }
    let text = String::from_utf8_lossy(input).into_owned();
    let loaded = FILE.with_borrow_mut(|file| {
        if file.is_none() {
            *file = tempfile::Builder::new().suffix(".toml").tempfile().ok();
        }
        let path = file.as_ref().map(|file| file.path().to_owned())?;
        std::fs::write(&path, &text).ok()?;
        Some(config::load_from(Some(&path), [], Vec::new()))
    });
    let keys =
        ["redis.url", "server.listen", "auth.hs256_secret", "worker.tenants", "server.trusted_proxies", "log.level"];
    let key = keys[text.len() % keys.len()];
    let flag = config::load_from(None, [], vec![(key.to_owned(), text)]);
    // What is given for a setting that is no secret may be quoted, whatever it holds.
    let is_secret = ["redis.url", "auth.hs256_secret"].contains(&key);
    for (error, is_secret) in [(loaded.and_then(Result::err), true), (flag.err(), is_secret)] {
        let Some(error) = error.map(|error| error.to_string()) else { continue };
        if error.contains(['\n', '\r']) {
            return Err(format!("more than one line: {error:?}"));
        }
        if is_secret && error.contains("hunter2hunter2") {
            return Err(format!("a secret is shown: {error}"));
        }
    }
    Ok(())
}

/// Whatever stands in Redis.
fn record(input: &[u8]) -> Result<(), String> {
    let _ = read_stored(&String::from_utf8_lossy(input));
    Ok(())
}

/// Whatever stands in Redis, read by the scripts, in a Redis of its own: none may fail at it half-way.
fn script() -> Target {
    let started = OnceCell::new();
    let script = reading_script();
    Box::new(move |input| {
        let server = started.get_or_init(RedisServer::start).as_ref().map_err(Clone::clone)?;
        let mut call = redis::cmd("EVALSHA");
        call.arg(script.hash(PublishedChannels::Plain))
            .arg(3)
            .arg(&["requests:0", "requests:1", "requests:2"])
            .arg(input);
        let mut connection = server.connection.borrow_mut();
        let mut answer = call.query::<Vec<redis::Value>>(&mut connection);
        if answer.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT")) {
            let load = redis::cmd("SCRIPT")
                .arg("LOAD")
                .arg(script.text(PublishedChannels::Plain))
                .query::<String>(&mut connection);
            load.map_err(|error| error.to_string())?;
            answer = call.query(&mut connection);
        }
        match answer {
            Ok(problem) if problem.is_empty() => Ok(()),
            Ok(problem) => Err(format!("{problem:?}")),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// A `redis-server` that listens at a socket file, and ends with this program.
struct RedisServer {
    connection: RefCell<redis::Connection>,
    process: Child,
    _folder: tempfile::TempDir,
}

impl RedisServer {
    fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let socket = folder.path().join("redis.sock");
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server does not start: {error}"))?;
        let url = format!("unix://{}", socket.display());
        let begun = Instant::now();
        loop {
            let connected = redis::Client::open(url.as_str()).and_then(|client| client.get_connection());
            match connected {
                Ok(connection) => return Ok(Self { connection: RefCell::new(connection), process, _folder: folder }),
                Err(error) if begun.elapsed() > Duration::from_secs(10) => {
                    let _ = process.kill();
                    return Err(format!("redis-server does not answer: {error}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn with_verifier(
    target: impl Fn(&Verifier, &tokio::runtime::Runtime, &[u8]) -> Result<(), String> + 'static,
) -> Target {
    let overrides = vec![("auth.hs256_secret".to_owned(), SECRET.to_owned())];
    let prepared = config::load_from(None, [], overrides).map_err(|error| error.to_string()).and_then(verifier);
    Box::new(move |input| {
        let (verifier, runtime) = prepared.as_ref().map_err(Clone::clone)?;
        target(verifier, runtime, input)
    })
}

fn verifier(settings: Settings) -> Result<(Verifier, tokio::runtime::Runtime), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let tracker = TaskTracker::new();
    let made = runtime
        .block_on(Verifier::new(&settings.auth, &tracker, CancellationToken::new()))
        .map_err(|error| error.to_string())?;
    Ok((made, runtime))
}

/// Base64 as tokens have it.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let whole = three.iter().fold(0_u32, |whole, byte| whole << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for n in 0..=three.len() {
            text.push(char::from(LETTERS[(whole >> (18 - 6 * n)) as usize & 63]));
        }
    }
    text
}
