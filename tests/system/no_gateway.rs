//! The command line against something that is no gateway: whatever it answers, nothing of it passes for success.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use tokio_tungstenite::tungstenite::{self, Message};

use super::shell::wheelhouse;

const ID: &str = "0190f3c8-0000-7000-8000-000000000001";

/// Every command that asks a gateway.
const COMMANDS: &[&[&str]] = &[
    &["job", "submit", "csv_import"],
    &["job", "submit", "csv_import", "--id", "j1", "--wait"],
    &["job", "ls"],
    &["job", "ls", "--status", "running", "--limit", "1000"],
    &["job", "show", "j1"],
    &["job", "show", "j1", "--follow"],
    &["job", "failed-items", "j1"],
    &["job", "cancel", "j1"],
    &["job", "pause", "j1", "--wait"],
    &["job", "resume", "j1", "--in", "1h"],
    &["campaign", "create", "Many", "--jobs", "jobs.json"],
    &["campaign", "add", "c1", "--jobs", "jobs.json"],
    &["campaign", "close", "c1"],
    &["campaign", "ls"],
    &["campaign", "show", "c1"],
    &["campaign", "show", "c1", "--follow"],
    &["campaign", "cancel", "c1"],
    &["campaign", "pause", "c1", "--wait"],
    &["campaign", "resume", "c1"],
    &["batch", "cancel", "--all"],
    &["batch", "pause", "--jobs", "j1,j2", "--wait"],
    &["batch", "resume", "--status", "paused", "--dry-run"],
    &["schedule", "ls"],
    &["schedule", "rm", ID],
    &["queue", "waiting"],
    &["queue", "waiting", "j1"],
    &["queue", "failed"],
    &["queue", "failed", ID],
    &["queue", "requeue", ID],
    &["queue", "drop", ID],
];

/// A server that treats every connection so, in a thread of its own, until the test program ends. Gives its address.
fn server(treat: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let treat = std::sync::Arc::new(treat);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let treat = treat.clone();
            std::thread::spawn(move || treat(stream));
        }
    });
    address
}

/// Reads one request, its body included; gives its first line.
fn request(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let mut some = [0; 4096];
    // TLS begins with this byte, which a plain server answers at once.
    while got.first() != Some(&0x16) {
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return head.lines().next().unwrap_or_default().to_owned();
            }
        }
        match stream.read(&mut some) {
            Ok(0) | Err(_) => return String::new(),
            Ok(n) => got.extend_from_slice(&some[..n]),
        }
    }
    String::new()
}

/// A server that gives each request the same bytes.
fn says(answer: &'static str) -> String {
    server(move |mut stream| {
        request(&mut stream);
        let _ = stream.write_all(answer.as_bytes());
    })
}

fn ask(folder: &Path, address: &str, args: &[&str], more: &[&str]) -> Output {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let mut command = wheelhouse(folder, args);
    command.args(["--url", &url, "--token", "t", "--answer-timeout", "2s"]).args(more);
    command.output().expect("run wheelhouse")
}

/// One line that says what is wrong, exit code 1, and nothing that reads like a result.
fn assert_no_success(name: &str, args: &[&str], output: &Output, part: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let context = format!("{name}, {args:?}: {output:?}");
    assert_eq!(output.status.code(), Some(1), "{context}");
    assert_eq!(out, "", "{context}");
    assert!(err.starts_with("wheelhouse: ") && err.lines().count() == 1, "{context}");
    assert!(err.contains(part), "no {part:?} in {context}");
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("jobs.json"), "[{\"job_type\":\"x\"}]").expect("write");
    folder
}

#[test]
fn nothing_that_another_server_answers_passes_for_success() {
    macro_rules! json {
        ($body:literal) => {
            concat!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n", $body)
        };
    }
    let no = "is no Wheelhouse gateway";
    let servers = [
        (
            "a page",
            says(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<!doctype html>\n<p>\x1b[31mHi",
            ),
            "is no Wheelhouse gateway: it answered 200 OK, text/html: <!doctype html> <p>\\u{1b}[31mHi",
        ),
        ("an empty object", says(json!("{}")), no),
        ("an empty list", says(json!("[]")), no),
        ("null", says(json!("null")), no),
        ("a number", says(json!("1")), no),
        ("a health answer", says(json!("{\"status\":\"ok\"}")), no),
        ("objects in place of lists", says(json!("{\"jobs\":{},\"campaigns\":{},\"failed\":{},\"schedules\":{}}")), no),
        (
            "somebody else's rows",
            says(json!(
                "{\"id\":7,\"jobs\":[{\"id\":7}],\"campaigns\":[7],\"failed\":[7],\"schedules\":[7],\"failed_items\":[7],\"items\":[7],\"next\":null}"
            )),
            no,
        ),
        (
            "a gateway's answer about something else",
            says(json!(
                "{\"type\":\"cancel_requested\",\"job_id\":\"other\",\"command_id\":\"0190f3c8-0000-7000-8000-000000000002\",\"workers_online\":1,\"id\":\"other\",\"status\":\"running\"}"
            )),
            no,
        ),
        ("JSON without its type", says("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}"), "no content type: {}"),
        (
            "a redirection",
            says("HTTP/1.1 302 Found\r\nlocation: https://login.example/\r\ncontent-length: 0\r\n\r\n"),
            "it answered 302 Found, which leads to https://login.example/",
        ),
        ("nothing", says("HTTP/1.1 204 No Content\r\n\r\n"), "it answered 204 No Content"),
        ("not found", says("HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nno"), no),
        (
            "a broken answer",
            says("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"jobs\":["),
            "broke off after 9 bytes",
        ),
        ("half of JSON", says(json!("{\"jobs\":[")), no),
        (
            "a proxy without its gateway",
            says("HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<h1>502"),
            "no gateway answers at",
        ),
        ("an alert of TLS", says("\x15\x03\x01\0\x02\x02\x46"), "speaks no HTTP; if it speaks TLS, write https://"),
        ("another protocol", says("220 mail.example ESMTP\r\n"), "speaks no HTTP"),
        ("a hang-up", server(drop), "without an answer"),
        (
            "silence",
            server(|stream| {
                std::thread::sleep(Duration::from_secs(60));
                drop(stream);
            }),
            "did not answer within 2 s",
        ),
        (
            "a WebSocket that nobody asked for",
            says("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n"),
            "127.0.0.1",
        ),
    ];
    let folder = folder();
    let try_one = &|name: &str, address: &str, args: &[&str], part: &str| {
        // It cannot be known what a failed command was about: any command accepted may be it.
        if name == "a gateway's answer about something else" && args[1] == "requeue" {
            return;
        }
        let output = ask(folder.path(), address, args, &[]);
        assert_no_success(name, args, &output, part);
        assert!(String::from_utf8_lossy(&output.stderr).contains(address), "{name}: {output:?}");
    };
    std::thread::scope(|scope| {
        for (name, address, part) in &servers {
            if *name == "silence" {
                // Each waits for seconds and does nothing.
                COMMANDS.iter().for_each(|args| drop(scope.spawn(move || try_one(name, address, args, part))));
            } else {
                scope.spawn(move || COMMANDS.iter().for_each(|args| try_one(name, address, args, part)));
            }
        }
    });
    for args in COMMANDS {
        assert_no_success("a page, as JSON", args, &ask(folder.path(), &servers[0].1, args, &["--json"]), no);
        let plain = format!("https://{}", servers[0].1);
        assert_no_success(
            "TLS",
            args,
            &ask(folder.path(), &plain, args, &[]),
            "speaks no TLS; for a gateway without it",
        );
    }
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    for args in COMMANDS {
        let output = ask(folder.path(), &nobody.to_string(), args, &[]);
        assert_no_success("nobody", args, &output, "is it running? (Connection refused");
    }
}

#[test]
fn waiting_ends_when_what_answers_turns_out_to_be_no_gateway() {
    let folder = folder();
    let then_a_page = |first: &'static str| {
        server(move |mut stream| {
            let line = request(&mut stream);
            let (kind, body) = if line.starts_with("POST") && !line.contains("wait=") {
                ("application/json", first)
            } else {
                ("text/html", "<p>hello")
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 202 Accepted\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all((head + body).as_bytes());
        })
    };
    let ack = then_a_page(
        "{\"type\":\"pause_requested\",\"job_id\":\"j1\",\"tenant_id\":\"t\",\"command_id\":\"0190f3c8-0000-7000-8000-000000000001\",\"workers_online\":1}",
    );
    let args = ["job", "pause", "j1", "--wait"];
    assert_no_success("a page after the ack", &args, &ask(folder.path(), &ack, &args, &[]), "202 Accepted, text/html");
    let row = then_a_page("{\"id\":\"j1\",\"tenant_id\":\"t\",\"status\":\"pending\",\"progress_percent\":0}");
    let args = ["job", "submit", "x", "--id", "j1", "--wait"];
    assert_no_success("a page for a socket", &args, &ask(folder.path(), &row, &args, &[]), "text/html: <p>hello");
}

#[test]
fn a_socket_that_is_no_gateways_is_not_followed() {
    let folder = folder();
    let socket = |then: fn(&mut tungstenite::WebSocket<TcpStream>)| {
        server(move |stream| {
            if let Ok(mut socket) = tungstenite::accept(stream) {
                then(&mut socket);
                // Until the other side has had enough.
                while socket.read().is_ok() {}
            }
        })
    };
    let cases: [(&str, String, &str); 5] = [
        ("silence", socket(|_| {}), "told no state for 2 s"),
        (
            "a greeting",
            socket(|s| drop(s.send(Message::text("hello \x1b[2J")))),
            "on its socket it said hello \\u{1b}[2J",
        ),
        (
            "other JSON",
            socket(|s| drop(s.send(Message::text("{\"type\":\"welcome\"}")))),
            "it said {\"type\":\"welcome\"}",
        ),
        ("bytes", socket(|s| drop(s.send(Message::binary(vec![1, 2])))), "binary messages"),
        (
            "a snapshot of nothing",
            socket(|s| drop(s.send(Message::text("{\"type\":\"job_snapshot\",\"status\":\"completed\"}")))),
            "the snapshot on its socket is none",
        ),
    ];
    for (name, address, part) in cases {
        let args = ["job", "show", "j1", "--follow"];
        assert_no_success(name, &args, &ask(folder.path(), &address, &args, &[]), part);
    }
}
