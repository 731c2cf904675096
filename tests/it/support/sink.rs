//! A webhook that keeps what it got, in the order in which it got it, and answers as it is told.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// One request.
#[derive(Debug, Clone)]
pub struct Got {
    /// When it was complete.
    pub at: Instant,
    /// Method and target, e.g. `POST /hook`.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
    /// What it was answered; 0 when it was not.
    pub status: u16,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Answer with this status.
    Status(u16),
    /// Answer with this status and `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Answer with this status after a while; other requests go on.
    Late(u16, Duration),
    /// Close the connection without an answer.
    HangUp,
    /// Never answer.
    Stall,
}

impl Reply {
    fn status(self) -> u16 {
        match self {
            Self::Status(status) | Self::RetryAfter(status, _) | Self::Late(status, _) => status,
            Self::HangUp | Self::Stall => 0,
        }
    }
}

impl From<u16> for Reply {
    fn from(status: u16) -> Self {
        Self::Status(status)
    }
}

impl Got {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The event's message id.
    pub fn message_id(&self) -> String {
        self.json()["messageId"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

type Answer = dyn Fn(&Got) -> Reply + Send + Sync;

/// A running webhook. It ends with the process.
#[derive(Clone)]
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Sink {
    /// Answers everything with 200.
    pub fn start() -> Self {
        Self::answering(|_| 200u16)
    }

    /// Answers with what `answer` says: a status, or a [`Reply`]. Requests are answered and noted one after the other.
    pub fn answering<R: Into<Reply>>(answer: impl Fn(&Got) -> R + Send + Sync + 'static) -> Self {
        let answer = move |got: &Got| answer(got).into();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let sink = Self {
            address: listener.local_addr().unwrap(),
            got: Arc::default(),
        };
        let (got, answer): (_, Arc<Answer>) = (Arc::clone(&sink.got), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (got, answer) = (Arc::clone(&got), Arc::clone(&answer));
                // A client that was killed breaks its connection; that is what is tested.
                std::thread::spawn(move || drop(serve(&stream, &got, &*answer)));
            }
        });
        sink
    }

    /// URL of a path on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    /// What came, in order.
    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Calls `look` on what came, without copying it.
    pub fn look<T>(&self, look: impl FnOnce(&[Got]) -> T) -> T {
        look(&self.got.lock().unwrap())
    }
}

fn serve(stream: &TcpStream, list: &Mutex<Vec<Got>>, answer: &Answer) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let target = line
            .rsplit_once(' ')
            .map_or(line.trim(), |(target, _)| target)
            .to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers
            .get("content-length")
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let reply = {
            // Noted and answered under one lock, so that the list's order is the order of arrival.
            let mut list = list.lock().unwrap();
            let mut got = Got {
                at: Instant::now(),
                target,
                headers,
                body,
                status: 0,
            };
            let reply = answer(&got);
            got.status = reply.status();
            list.push(got);
            reply
        };
        let status = reply.status();
        let mut more = String::new();
        match reply {
            Reply::Status(_) => {}
            Reply::RetryAfter(_, seconds) => more = format!("Retry-After: {seconds}\r\n"),
            Reply::Late(_, after) => std::thread::sleep(after),
            Reply::HangUp => return Ok(()),
            // Until the client has had enough.
            Reply::Stall => return reader.read(&mut [0; 64]).map(drop),
        }
        let text = format!("HTTP/1.1 {status} Told\r\n{more}Content-Length: 2\r\n\r\nok");
        (&*stream).write_all(text.as_bytes())?;
    }
}
