//! RFC 6455 from outside, by the public case list of the Autobahn test suite (groups 1 to 7, 9 and 10), with frames made
//! here byte by byte. The sockets of this program are no echo servers, so each says with which message it is asked and how
//! it answers. A case is frames to send, and what must come back; each has a connection of its own.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(30);
const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// A socket under test.
pub struct Subject {
    /// `HOST:PORT`.
    pub address: String,
    /// Path and query.
    pub path: String,
    /// Further headers of the upgrade, each with its line end.
    pub headers: String,
    /// How many messages come unasked at the start.
    pub greeting: usize,
    /// A message that is answered, with a `~` where any short text may stand, and a `^` where any space may.
    pub question: String,
    /// How its answer begins.
    pub answer: String,
    /// Bytes that one message may have.
    pub longest: usize,
    /// Cases that may be gone through at a time.
    pub at_once: usize,
}

/// What must come back.
#[derive(Debug, Clone, PartialEq)]
enum Expected {
    /// The answer to the question.
    Answer,
    Pong(Vec<u8>),
    /// A close with this code; nothing but pongs before it.
    Close(u16),
    /// A close with this code and reason, or without any.
    Echo(Vec<u8>),
}

struct Case {
    name: String,
    bytes: Vec<u8>,
    /// Bytes that are sent at a time.
    chop: usize,
    expected: Vec<Expected>,
}

/// A frame of a client, masked, of any length.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_ref())
}

fn ping(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | PING, payload.as_ref())
}

fn close(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | CLOSE, &close_payload(code, reason))
}

fn close_payload(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_ref()].concat()
}

/// A message in pieces of so many bytes, with other frames between two of them.
fn pieces(payload: &[u8], size: usize, between: &[u8]) -> Vec<u8> {
    let count = payload.len().div_ceil(size);
    let piece = |(n, piece): (usize, &[u8])| {
        let code = if n == 0 { TEXT } else { CONTINUATION };
        let last = n + 1 == count;
        [frame(if last { FIN | code } else { code }, piece), if last { Vec::new() } else { between.to_vec() }].concat()
    };
    payload.chunks(size).enumerate().map(piece).collect::<Vec<_>>().concat()
}

/// Texts that are UTF-8 (Autobahn 6.5 to 6.7, 6.9, 6.11, 6.13, 6.16, 6.22, 6.23): the ends of each range, and non-characters,
/// which are allowed. No control characters: those cannot stand in JSON.
const VALID: [&str; 12] = [
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε",
    "\u{80}",
    "\u{800}",
    "\u{10000}",
    "\u{7ff}",
    "\u{ffff}",
    "\u{d7ff}\u{e000}\u{fffd}",
    "\u{10ffff}",
    "\u{fffe}\u{1fffe}\u{10fffe}",
    "\u{fdd0}",
    "\u{0300}\u{202e}",
];

/// Bytes that are not (6.8, 6.10, 6.12, 6.14, 6.15, 6.17 to 6.21): too long, surrogates, beyond the last, alone, cut off.
const INVALID: [&[u8]; 22] = [
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\x80",
    b"\xbf",
    b"\x80\xbf\x80\xbf",
    b"\xce",
    b"\xce\xba\xe1",
    b"\xe1\xbd",
    b"\xf0\x90\x80",
    b"\xfe",
    b"\xff",
    b"\xfe\xfe\xff\xff",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
];

impl Subject {
    /// The question, up to where a text may stand, and from there on.
    fn halves(&self) -> (String, String) {
        let (before, after) = self.question.split_once('~').expect("a place for a text");
        (before.replace('^', ""), after.replace('^', ""))
    }

    /// The question with this text in it.
    fn ask(&self, text: &str) -> Vec<u8> {
        let (before, after) = self.halves();
        format!("{before}{text}{after}").into_bytes()
    }

    /// The question with so many bytes.
    fn ask_with_length(&self, length: usize) -> Vec<u8> {
        let space = length.checked_sub(self.question.len() - 2).expect("room");
        self.question.replace('~', "").replace('^', &" ".repeat(space)).into_bytes()
    }

    fn cases(&self) -> Vec<Case> {
        use Expected::{Answer, Close, Echo, Pong};
        let mut cases = Vec::new();
        let mut add = |name: String, bytes: Vec<u8>, expected: Vec<Expected>| {
            cases.push(Case { name, bytes, chop: usize::MAX, expected });
        };
        // 1: framing.
        for length in [125, 126, 127, 128, 1_000, self.longest] {
            add(format!("1.1 text of {length} bytes"), text(self.ask_with_length(length)), vec![Answer]);
        }
        for length in [0, 125, 126, 127, 128, 1_000] {
            add(format!("1.2 binary of {length} bytes"), frame(FIN | BINARY, &vec![0xfe; length]), vec![Close(1003)]);
        }
        // 2: pings and pongs.
        for payload in [&b""[..], b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", &[0xfe; 125]] {
            add(format!("2.1 ping of {} bytes", payload.len()), ping(payload), vec![Pong(payload.to_vec())]);
        }
        add("2.5 ping of 126 bytes".into(), ping([0xfe; 126]), vec![Close(1002)]);
        let unasked = [frame(FIN | PONG, b""), frame(FIN | PONG, b"unasked"), ping("after")].concat();
        add("2.7 pongs that nobody asked for".into(), unasked, vec![Pong(b"after".to_vec())]);
        let ten: Vec<String> = (0..10).map(|n| format!("payload-{n}")).collect();
        let pongs = ten.iter().map(|payload| Pong(payload.clone().into_bytes())).collect();
        add("2.10 ten pings".into(), ten.iter().map(ping).collect::<Vec<_>>().concat(), pongs);
        // 3: reserved bits. 4: reserved opcodes.
        for bits in 1..8_u8 {
            for code in [TEXT, PING, CLOSE] {
                let bytes = frame(FIN | bits << 4 | code, b"");
                add(format!("3 reserved bits {bits:03b} of {code:#x}"), bytes, vec![Close(1002)]);
            }
        }
        let after_text = |bytes: Vec<u8>| [text(self.ask("")), bytes].concat();
        add("3.2 after a text".into(), after_text(frame(FIN | 0x20 | TEXT, b"*")), vec![Answer, Close(1002)]);
        for code in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
            for payload in [&b""[..], b"reserved"] {
                add(format!("4 opcode {code:#x}"), frame(FIN | code, payload), vec![Close(1002)]);
            }
            add(format!("4 opcode {code:#x} later"), after_text(frame(FIN | code, b"")), vec![Answer, Close(1002)]);
        }
        // 5: fragments.
        add("5.1 ping in pieces".into(), [frame(PING, b"a"), frame(FIN, b"b")].concat(), vec![Close(1002)]);
        add("5.2 pong in pieces".into(), [frame(PONG, b"a"), frame(FIN, b"b")].concat(), vec![Close(1002)]);
        add("5.2 close in pieces".into(), frame(CLOSE, b"\x03\xe8"), vec![Close(1002)]);
        let question = self.ask("in pieces");
        let half = question.len() / 2;
        add("5.3 text in two pieces".into(), pieces(&question, half + 1, b""), vec![Answer]);
        let with_ping = pieces(&question, half + 1, &ping("between"));
        add("5.6 a ping between them".into(), with_ping, vec![Pong(b"between".to_vec()), Answer]);
        let empty = [frame(TEXT, b""), frame(CONTINUATION, b""), frame(FIN, &question)].concat();
        add("5.5 empty pieces first".into(), empty, vec![Answer]);
        let none_last = [frame(TEXT, &question), frame(FIN, b"")].concat();
        add("5.5 an empty piece last".into(), none_last, vec![Answer]);
        for first in [FIN | CONTINUATION, CONTINUATION] {
            add(format!("5.9 continuation {first:#x} of nothing"), frame(first, b"x"), vec![Close(1002)]);
            let after = after_text(frame(first, b"x"));
            add(format!("5.12 continuation {first:#x} after the end"), after, vec![Answer, Close(1002)]);
        }
        let inside = [frame(TEXT, b"a"), text("b")].concat();
        add("5.18 a text inside another".into(), inside, vec![Close(1002)]);
        let inside = [frame(TEXT, b"a"), frame(FIN | BINARY, b"b")].concat();
        add("5.18 a binary inside a text".into(), inside, vec![Close(1002)]);
        // 6: UTF-8.
        for valid in VALID {
            let question = self.ask(valid);
            add(format!("6 {valid:?}"), text(&question), vec![Answer]);
            // A character may lie across pieces.
            let at = self.halves().0.len();
            let within = [frame(TEXT, &question[..=at]), frame(FIN, &question[at + 1..])].concat();
            add(format!("6 {valid:?} across two pieces"), within, vec![Answer]);
        }
        for invalid in INVALID {
            let (before, after) = self.halves();
            let question = [before.as_bytes(), invalid, after.as_bytes()].concat();
            add(format!("6 not UTF-8: {invalid:02x?}"), text(&question), vec![Close(1007)]);
            // At once: the rest of the message never comes.
            let first = [before.as_bytes(), invalid, b"x"].concat();
            add(format!("6.4 not UTF-8 in a first piece: {invalid:02x?}"), frame(TEXT, &first), vec![Close(1007)]);
            let next = [frame(TEXT, b"{\"a\":\""), frame(CONTINUATION, &[invalid, b"x"].concat())].concat();
            add(format!("6.4 not UTF-8 in a later piece: {invalid:02x?}"), next, vec![Close(1007)]);
        }
        let cut = [frame(TEXT, b"\"\xce"), frame(FIN, b"")].concat();
        add("6.1 a character that the last piece cuts off".into(), cut, vec![Close(1007)]);
        // 7: closes.
        let after = [close(1000, ""), text(self.ask("")), ping("late")].concat();
        add("7.1 nothing is answered after a close".into(), after, vec![Echo(close_payload(1000, ""))]);
        add("7.1 two closes".into(), [close(1000, ""), close(1000, "")].concat(), vec![Echo(close_payload(1000, ""))]);
        let in_text = [frame(TEXT, b"a"), close(1000, ""), frame(FIN, b"b")].concat();
        add("7.1 a close within a text".into(), in_text, vec![Echo(close_payload(1000, ""))]);
        add("7.3 a close of no bytes".into(), frame(FIN | CLOSE, b""), vec![Echo(Vec::new())]);
        add("7.3 a close of one byte".into(), frame(FIN | CLOSE, b"a"), vec![Close(1002)]);
        let long = "*".repeat(123);
        add("7.3 the longest reason".into(), close(1000, &long), vec![Echo(close_payload(1000, &long))]);
        add("7.3 a longer one".into(), close(1000, "*".repeat(124)), vec![Close(1002)]);
        add("7.5 a reason that is not UTF-8".into(), close(1000, b"\xce\xba\xe1\xbd\xb9\xcf"), vec![Close(1007)]);
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
            add(format!("7.7 code {code}"), close(code, "why"), vec![Echo(close_payload(code, "why"))]);
        }
        for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
            add(format!("7.9 code {code}"), close(code, ""), vec![Close(1002)]);
        }
        // 9: limits. 10: pieces of many bytes.
        add("9.1 one byte too many".into(), text(self.ask_with_length(self.longest + 1)), vec![Close(1009)]);
        let announced = [&[FIN | TEXT, 0x80 | 127][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
        add("9.1 more than there is, announced".into(), announced, vec![Close(1009)]);
        let much = pieces(&self.ask_with_length(self.longest + 1), self.longest / 4 + 1, b"");
        add("9.3 one byte too many in pieces".into(), much, vec![Close(1009)]);
        let most = pieces(&self.ask_with_length(self.longest), 1_300, b"");
        add("10.1 the longest in pieces of 1,300 bytes".into(), most, vec![Answer]);
        // Beyond the list: a client has to mask.
        add("a frame without a mask".into(), vec![FIN | TEXT, 2, b'{', b'}'], vec![Close(1002)]);

        // The same a byte at a time, and some bytes at a time: nothing depends on how the network cuts it.
        let chopped = |chop| cases.iter().map(move |case: &Case| (chop, case));
        let again: Vec<Case> = chopped(1)
            .chain(chopped(997))
            .filter(|(chop, case)| case.bytes.len() > *chop && case.bytes.len() < 300 * chop)
            .map(|(chop, case)| Case {
                name: format!("{} in chops of {chop}", case.name),
                bytes: case.bytes.clone(),
                chop,
                expected: case.expected.clone(),
            })
            .collect();
        cases.extend(again);
        cases
    }

    /// Goes through all cases; gives what is not as it should be, and how many there were.
    pub async fn failures(self) -> (Vec<String>, usize) {
        let cases = self.cases();
        let running = cases.iter().map(async |case| {
            let outcome = self.run(case).await;
            outcome.err().map(|problem| format!("{}: {problem}", case.name))
        });
        let outcomes: Vec<Option<String>> = futures_util::stream::iter(running).buffered(self.at_once).collect().await;
        (outcomes.into_iter().flatten().collect(), cases.len())
    }

    async fn open(&self) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.expect("connect");
        stream.set_nodelay(true).expect("a socket");
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: subject\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n{}\r\n",
            self.path, self.headers
        );
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        for _ in 0..self.greeting {
            received(&mut stream).await.expect("a greeting");
        }
        stream
    }

    async fn run(&self, case: &Case) -> Result<(), String> {
        let stream = tokio::time::timeout(PATIENCE, self.open()).await.map_err(|_| "it did not open")?;
        let (mut reading, mut writing) = stream.into_split();
        let send = async {
            for some in case.bytes.chunks(case.chop.min(case.bytes.len().max(1))) {
                // It may have closed already.
                if writing.write_all(some).await.is_err() {
                    break;
                }
            }
        };
        let receive = async {
            for expected in &case.expected {
                let got = received(&mut reading).await?;
                let fits = match expected {
                    Expected::Answer => got.0 == TEXT && got.1.starts_with(self.answer.as_bytes()),
                    Expected::Pong(payload) => got == (PONG, payload.clone()),
                    Expected::Close(code) => got.0 == CLOSE && got.1.starts_with(&code.to_be_bytes()),
                    Expected::Echo(payload) => got == (CLOSE, payload.clone()),
                };
                if !fits {
                    let (code, payload) = got;
                    return Err(format!("{expected:?}, but {code:#x} {:?} came", String::from_utf8_lossy(&payload)));
                }
            }
            // Where the client has closed, the server ends the connection; else it waits for the client's own close.
            if matches!(case.expected.last(), Some(Expected::Echo(_))) {
                return match received(&mut reading).await {
                    Err(_) => Ok(()),
                    Ok((code, _)) => Err(format!("{code:#x} came after the close")),
                };
            }
            Ok(())
        };
        let both = async {
            let ((), received) = tokio::join!(send, receive);
            received
        };
        tokio::time::timeout(PATIENCE, both).await.map_err(|_| "nothing came in time".to_owned())?
    }
}

/// The next frame of the server, which must be whole and as a server writes it.
async fn received(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<(u8, Vec<u8>), String> {
    let end = |error: std::io::Error| format!("the connection ended: {error}");
    let first = stream.read_u8().await.map_err(end)?;
    let second = stream.read_u8().await.map_err(end)?;
    if first & 0xf0 != FIN || second & 0x80 != 0 {
        return Err(format!("a server does not send {first:#x} {second:#x}"));
    }
    let length = match second {
        126 => u64::from(stream.read_u16().await.map_err(end)?),
        127 => stream.read_u64().await.map_err(end)?,
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).map_err(|_| "too long")?];
    stream.read_exact(&mut payload).await.map_err(end)?;
    Ok((first & 0x0f, payload))
}
