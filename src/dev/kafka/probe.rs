//! Asking a broker whether it really answers: one Metadata round trip over a plain socket.
//!
//! A few dozen bytes written by hand, because this module must also work where no Kafka client is linked, and
//! because a client would hide what we want to see (it reconnects, waits and caches).

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// One connect, one write or one read may take this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// A Metadata answer without topics is far smaller; anything bigger is not a Kafka broker.
const ANSWER_BYTES_MAX: u32 = 1 << 20;

/// What a broker says about its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterView {
    pub(super) cluster_id: Option<String>,
    /// Brokers that are up, with the port they advertise.
    pub(super) brokers: Vec<(i32, i32)>,
}

/// Metadata version 4: the last simple encoding with the cluster id, served by every Kafka since 0.11. The
/// topic list is empty, which means none.
const METADATA_REQUEST: &[u8] = &[
    0, 0, 0, 22, // size
    0, 3, 0, 4, // API key 3, version 4
    0, 0, 0, 7, // correlation id
    0, 7, b's', b'l', b'u', b'i', b'c', b'e', b'?', // client id
    0, 0, 0, 0, // no topics
    0, // do not create any
];

/// Asks the broker at `address` ("host:port").
///
/// # Errors
/// Any failure to connect, write or read in [`PATIENCE`], or an answer that is not Kafka's.
pub(super) fn metadata(address: &str) -> io::Result<ClusterView> {
    let address = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(METADATA_REQUEST)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = u32::from_be_bytes(size);
    if size > ANSWER_BYTES_MAX {
        return Err(not_kafka());
    }
    let mut answer = Vec::new();
    stream.take(size.into()).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(not_kafka)
}

fn not_kafka() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the answer is not that of a plaintext Kafka listener",
    )
}

/// Reads the fields up to the controller id; topics follow and do not interest us.
fn parse(answer: &[u8]) -> Option<ClusterView> {
    let mut rest = answer;
    let _correlation = int32(&mut rest)?;
    let _throttle_ms = int32(&mut rest)?;
    let mut brokers = Vec::new();
    for _ in 0..int32(&mut rest)? {
        let id = int32(&mut rest)?;
        let _host = string(&mut rest)?;
        let port = int32(&mut rest)?;
        let _rack = string(&mut rest)?;
        brokers.push((id, port));
    }
    Some(ClusterView {
        cluster_id: string(&mut rest)?,
        brokers,
    })
}

fn int32(rest: &mut &[u8]) -> Option<i32> {
    let (bytes, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(i32::from_be_bytes(*bytes))
}

/// A string with a 16-bit length; −1 is null, which is the inner `None`.
fn string(rest: &mut &[u8]) -> Option<Option<String>> {
    let (length, tail) = rest.split_first_chunk()?;
    *rest = tail;
    let Ok(length) = usize::try_from(i16::from_be_bytes(*length)) else {
        return Some(None);
    };
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(Some(String::from_utf8_lossy(bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend([0, 0, 0, 7, 0, 0, 0, 0]);
        bytes.extend([
            0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b'h', 0, 0, 0x4e, 0x21, 0xff, 0xff,
        ]);
        bytes.extend([0, 2, b'i', b'd', 0, 0, 0, 1, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn brokers_and_the_cluster_id_are_read() {
        assert_eq!(
            parse(&answer()),
            Some(ClusterView {
                cluster_id: Some("id".into()),
                brokers: vec![(1, 20001)]
            })
        );
    }

    #[test]
    fn a_cut_answer_is_refused_and_never_panics() {
        let whole = answer();
        // The controller id and the topics at the end are not read.
        for length in 0..whole.len() - 8 {
            assert_eq!(parse(&whole[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn the_request_states_its_own_size() {
        let (size, body) = METADATA_REQUEST.split_first_chunk().unwrap();
        assert_eq!(u32::from_be_bytes(*size) as usize, body.len());
    }
}
