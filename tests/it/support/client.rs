//! An HTTP/1.1 client that sends the bytes it is given, over one connection.
//!
//! Tests replay captured requests byte for byte, and the load harness must cost less than the server it measures; both
//! rule out a client that builds requests and headers of its own.

use std::io;
use std::net::SocketAddr;

use base64::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// One kept-alive connection. After an error it is of no use any more.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The last answer, in its connection's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Status code.
    pub status: u16,
    head: &'a [u8],
    /// Body, as sent.
    pub body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// A header's value; the name in any case.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        header(self.head, name)
    }

    /// Every header, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        lines(self.head)
    }

    /// The body as text.
    pub fn text(&self) -> &'a str {
        std::str::from_utf8(self.body).unwrap_or("(not UTF-8)")
    }

    /// Whether the server will close the connection.
    pub fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(1024),
        })
    }

    /// Sends one whole request and reads its answer.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        let (status, head_end, end) = loop {
            if let Some(frame) = frame(&self.buffer)? {
                let end = match frame.body {
                    Body::Length(n) => frame.head_end + n,
                    Body::UntilClose => {
                        while self.read().await? {}
                        self.buffer.len()
                    }
                };
                if self.buffer.len() >= end {
                    break (frame.status, frame.head_end, end);
                }
            }
            if !self.read().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        Ok(Answer {
            status,
            head: &self.buffer[..head_end],
            body: &self.buffer[head_end..end],
        })
    }

    /// Reads what is there; false at the end of the stream.
    async fn read(&mut self) -> io::Result<bool> {
        if self.buffer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

struct Frame {
    status: u16,
    head_end: usize,
    body: Body,
}

enum Body {
    Length(usize),
    UntilClose,
}

/// Where head and body end; `None` until the head is whole.
fn frame(bytes: &[u8]) -> io::Result<Option<Frame>> {
    let Some(at) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let head_end = at + 4;
    let head = &bytes[..head_end];
    let status: u16 = std::str::from_utf8(head.get(9..12).unwrap_or_default())
        .ok()
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid("not an HTTP status line"))?;
    if header(head, "transfer-encoding").is_some() {
        return Err(invalid("chunked answers are not understood"));
    }
    let body = match header(head, "content-length") {
        Some(n) => Body::Length(n.parse().map_err(|_| invalid("bad Content-Length"))?),
        None if status == 204 || status == 304 => Body::Length(0),
        None => Body::UntilClose,
    };
    Ok(Some(Frame {
        status,
        head_end,
        body,
    }))
}

fn lines(head: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    std::str::from_utf8(head)
        .unwrap_or_default()
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    lines(head)
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// The `Authorization` value of a write key.
pub fn basic(write_key: &str) -> String {
    let pair = format!("{write_key}:");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

/// The head of a request up to the length, which the caller may have to write later.
pub fn head(method: &str, host: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.into_bytes()
}

/// A whole request.
pub fn request(
    method: &str,
    host: SocketAddr,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = head(method, host, target, headers);
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A JSON request as an SDK sends it.
pub fn post_json(host: SocketAddr, target: &str, write_key: &str, body: &[u8]) -> Vec<u8> {
    let headers = [
        ("Authorization", basic(write_key)),
        ("Content-Type", "application/json".to_owned()),
    ];
    let headers = headers.each_ref().map(|(n, v)| (*n, v.as_str()));
    request("POST", host, target, &headers, body)
}
