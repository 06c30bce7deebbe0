//! What the tests start ends with them, however they end.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use super::faults::until;
use crate::support::redis::RedisServer;

const INNER: &str = "WHEELHOUSE_TEST_TO_BE_KILLED";

#[tokio::test]
async fn a_test_process_that_is_killed_leaves_no_redis_server_behind() {
    if std::env::var_os(INNER).is_some() {
        let redis = RedisServer::start();
        println!("\nport={}", redis.port());
        return std::future::pending().await;
    }
    let name = "broker::leftovers::a_test_process_that_is_killed_leaves_no_redis_server_behind";
    let mut inner = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(INNER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("start this test once more");
    let lines = BufReader::new(inner.stdout.take().expect("piped")).lines();
    let port = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("port=")?.parse::<u16>().ok());
    let port = port.expect("it starts a server");
    inner.kill().expect("kill it");
    inner.wait().expect("wait for it");
    until("the server ends", async || TcpStream::connect(("127.0.0.1", port)).is_err()).await;
}
