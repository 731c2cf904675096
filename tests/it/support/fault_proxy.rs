//! Stands between a client and the gateway and does to the client what networks and overloaded servers do.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What happens to one POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Pass,
    /// Answered 503 with `Retry-After`; the gateway never sees it.
    Unavailable,
    /// Answered 429 with `Retry-After`; the gateway never sees it.
    TooMany,
    /// The connection is closed before the gateway sees it.
    CutBefore,
    /// The gateway accepts it, and the connection is closed before its answer arrives.
    CutAfter,
}

/// For how long every POST is answered with 503, from the first one; then one fate after the other, then nothing more.
#[derive(Debug, Clone)]
pub struct Faults {
    /// See above.
    pub unavailable: Duration,
    /// See above.
    pub then: Vec<Fate>,
}

/// A running proxy. It ends with the process.
pub struct FaultProxy {
    /// Where clients connect.
    pub address: SocketAddr,
    state: Arc<State>,
}

struct State {
    gateway: SocketAddr,
    faults: Faults,
    first: Mutex<Option<Instant>>,
    fates: Mutex<Vec<Fate>>,
}

impl FaultProxy {
    /// Starts one.
    pub fn start(gateway: SocketAddr, faults: Faults) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::new(State {
                gateway,
                faults,
                first: Mutex::default(),
                fates: Mutex::default(),
            }),
        };
        let state = Arc::clone(&proxy.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // Broken connections are this proxy's trade.
                std::thread::spawn(move || drop(serve(&stream, &state)));
            }
        });
        proxy
    }

    /// What has happened to the POSTs so far.
    pub fn fates(&self) -> Vec<Fate> {
        self.state.fates.lock().unwrap().clone()
    }
}

impl State {
    fn next_fate(&self) -> Fate {
        let first = *self.first.lock().unwrap().get_or_insert_with(Instant::now);
        let mut fates = self.fates.lock().unwrap();
        let fate = if first.elapsed() < self.faults.unavailable {
            Fate::Unavailable
        } else {
            let after = fates.iter().filter(|f| **f != Fate::Unavailable).count();
            self.faults.then.get(after).copied().unwrap_or(Fate::Pass)
        };
        fates.push(fate);
        fate
    }
}

fn serve(client: &TcpStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    while let Some(message) = read_message(&mut reader)? {
        let fate = if message.starts_with(b"POST ") {
            state.next_fate()
        } else {
            Fate::Pass
        };
        match fate {
            Fate::Pass => {
                let answer = forward(state.gateway, &message)?;
                (&*client).write_all(&answer)?;
            }
            Fate::Unavailable => {
                (&*client).write_all(&refusal("503 Service Unavailable", &message))?;
            }
            Fate::TooMany => {
                (&*client).write_all(&refusal("429 Too Many Requests", &message))?;
            }
            Fate::CutBefore => return Ok(()),
            Fate::CutAfter => {
                forward(state.gateway, &message)?;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// As the gateway's own: a page on another origin may read it.
fn refusal(status: &str, request: &[u8]) -> Vec<u8> {
    let request = String::from_utf8_lossy(request);
    let origin = request
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("origin"));
    let cors = origin.map_or_else(String::new, |(_, origin)| {
        format!("Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Expose-Headers: Retry-After\r\n")
    });
    format!("HTTP/1.1 {status}\r\n{cors}Retry-After: 1\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nlate").into_bytes()
}

fn forward(gateway: SocketAddr, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(gateway)?;
    stream.write_all(message)?;
    let answer = read_message(&mut BufReader::new(&stream))?;
    answer.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

/// Head and body of one message with `Content-Length` or, as node sends them, chunks; `None` at the end of the stream.
fn read_message(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let (mut length, mut chunked) = (0_usize, false);
    loop {
        let from = bytes.len();
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&bytes[from..]).to_ascii_lowercase();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
    }
    if !chunked {
        let from = bytes.len();
        bytes.resize(from + length, 0);
        reader.read_exact(&mut bytes[from..])?;
        return Ok(Some(bytes));
    }
    loop {
        let from = bytes.len();
        reader.read_until(b'\n', &mut bytes)?;
        let line = String::from_utf8_lossy(&bytes[from..]);
        let size =
            usize::from_str_radix(line.trim().split(';').next().unwrap_or(""), 16).unwrap_or(0);
        let from = bytes.len();
        bytes.resize(from + size + 2, 0);
        reader.read_exact(&mut bytes[from..])?;
        if size == 0 {
            return Ok(Some(bytes));
        }
    }
}
