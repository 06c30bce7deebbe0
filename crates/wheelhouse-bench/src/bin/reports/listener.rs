//! Hears every update of every job, as a watcher of everything would: by a plain connection to Redis that is read as fast as
//! it brings them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::unix_us;

/// What was heard since it was last asked.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Arrived>);

#[derive(Default)]
pub(crate) struct Arrived {
    /// From the report to the message, µs.
    pub(crate) latencies: Vec<i64>,
    /// Messages whose number was not higher than that of the one before, of the same job.
    pub(crate) out_of_order: usize,
    last: HashMap<String, i64>,
}

impl Heard {
    pub(crate) fn take(&self) -> Arrived {
        let arrived = &mut *self.0.lock();
        let last = arrived.last.clone();
        std::mem::replace(arrived, Arrived { last, ..Arrived::default() })
    }

    fn note(&self, message: &str) {
        let (Some(job), Some(at), Some(seq)) =
            (text(message, "\"job_id\":\""), number(message, "\"items_processed\":"), number(message, "\"seq\":"))
        else {
            return;
        };
        let arrived = &mut *self.0.lock();
        arrived.latencies.push(unix_us() - at);
        match arrived.last.get_mut(job) {
            Some(last) => {
                arrived.out_of_order += usize::from(*last >= seq);
                *last = seq;
            }
            None => drop(arrived.last.insert(job.to_owned(), seq)),
        }
    }
}

pub(crate) async fn listen(port: u16, heard: Arc<Heard>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"PSUBSCRIBE *:job:*\r\n").await?;
    let (mut buffer, mut filled) = (vec![0_u8; 1 << 20], 0);
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let whole = buffer[..filled].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in buffer[..whole].split(|byte| *byte == b'\n') {
            // A message is a line of its own: it has no line breaks in it.
            if line.starts_with(b"{\"type\":\"job_progress\"")
                && let Ok(message) = std::str::from_utf8(line)
            {
                heard.note(message);
            }
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

fn after<'a>(message: &'a str, field: &str) -> Option<&'a str> {
    message.find(field).map(|at| &message[at + field.len()..])
}

fn text<'a>(message: &'a str, field: &str) -> Option<&'a str> {
    after(message, field)?.split('"').next()
}

fn number(message: &str, field: &str) -> Option<i64> {
    after(message, field)?.split([',', '}']).next()?.parse().ok()
}
