//! Compressed bodies, inflated with a cap: a few kilobytes can become gigabytes.

use std::io::{self, Read};

use bytes::Bytes;
use http::{HeaderMap, header};

use super::limit::Taken;
use super::refusal::Refusal;

/// Memory that a zstd frame may ask the decoder for: 8 MiB, what RFC 9659 lets a server expect.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    /// RFC 9110: zlib's format; some clients send the bare stream.
    Deflate,
    Zstd,
}

impl Encoding {
    /// The encoding that `Content-Encoding` names. One that is not known is taken for none, as RudderStack does: such a
    /// body is then no JSON.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get(header::CONTENT_ENCODING).map(|v| v.as_bytes()) {
            Some(b"gzip") => Self::Gzip,
            Some(b"deflate") => Self::Deflate,
            Some(b"zstd") => Self::Zstd,
            Some(_) | None => Self::Identity,
        }
    }
}

/// Inflates `sent` to at most `cap` bytes, which are taken from the budget as they come out.
///
/// # Errors
/// [`Refusal::TooLarge`] beyond `cap`, [`Refusal::Overloaded`] beyond the budget, [`Refusal::BodyUnreadable`] when the
/// stream is broken.
pub(super) fn inflate(
    encoding: Encoding,
    sent: &[u8],
    cap: usize,
    taken: &mut Taken,
) -> Result<Bytes, Refusal> {
    match encoding {
        Encoding::Identity => Ok(Bytes::copy_from_slice(sent)),
        Encoding::Gzip => drain(gzip(sent), sent.len(), cap, taken),
        Encoding::Deflate if is_zlib(sent) => drain(zlib(sent), sent.len(), cap, taken),
        Encoding::Deflate => drain(bare(sent), sent.len(), cap, taken),
        Encoding::Zstd => {
            let reader = zstd(sent).map_err(|_| Refusal::BodyUnreadable)?;
            drain(reader, sent.len(), cap, taken)
        }
    }
}

// The one place that inflates what comes from outside; `drain` counts what comes out.
#[allow(clippy::disallowed_types)]
fn gzip(sent: &[u8]) -> impl Read + '_ {
    flate2::read::MultiGzDecoder::new(sent)
}

#[allow(clippy::disallowed_types)]
fn zlib(sent: &[u8]) -> impl Read + '_ {
    flate2::read::ZlibDecoder::new(sent)
}

#[allow(clippy::disallowed_types)]
fn bare(sent: &[u8]) -> impl Read + '_ {
    flate2::read::DeflateDecoder::new(sent)
}

fn zstd(sent: &[u8]) -> io::Result<impl Read + '_> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(sent)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// RFC 1950: deflate in the low half of the first byte, and the first two bytes a multiple of 31.
fn is_zlib(sent: &[u8]) -> bool {
    match sent {
        [method, flags, ..] => {
            method & 0x0f == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0
        }
        _ => false,
    }
}

fn drain(
    mut reader: impl Read,
    sent: usize,
    cap: usize,
    taken: &mut Taken,
) -> Result<Bytes, Refusal> {
    const STEP: usize = 64 << 10;
    let mut out = Vec::with_capacity((sent * 4).clamp(1 << 10, STEP));
    loop {
        let room = (cap + 1 - out.len()).min(STEP);
        let from = out.len();
        let came = (&mut reader)
            .take(room as u64)
            .read_to_end(&mut out)
            .map_err(|_| Refusal::BodyUnreadable)?;
        if out.len() > cap {
            return Err(Refusal::TooLarge);
        }
        if !taken.take(out.len() - from) {
            return Err(Refusal::Overloaded);
        }
        if came < room {
            return Ok(out.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::gateway::limit::ByteBudget;

    fn compressed(encoding: Encoding, data: &[u8]) -> Vec<u8> {
        let best = flate2::Compression::best();
        match encoding {
            Encoding::Identity => data.to_vec(),
            Encoding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), best);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), best);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => zstd::encode_all(data, 3).unwrap(),
        }
    }

    fn read(encoding: Encoding, sent: &[u8], cap: usize, budget: usize) -> Result<Bytes, Refusal> {
        inflate(encoding, sent, cap, &mut ByteBudget::new(budget).taker())
    }

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];

    #[test]
    fn a_bomb_is_refused_before_it_is_inflated() {
        for encoding in ALL {
            let bomb = compressed(encoding, &vec![0; 50 << 20]);
            assert!(bomb.len() < 100_000);
            let refusal = read(encoding, &bomb, 1 << 20, 4 << 20).unwrap_err();
            assert_eq!(refusal, Refusal::TooLarge, "{encoding:?}");
        }
    }

    #[test]
    fn a_body_of_exactly_the_cap_is_taken_and_one_byte_more_is_not() {
        let data: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        for encoding in ALL {
            let sent = compressed(encoding, &data);
            assert_eq!(read(encoding, &sent, data.len(), 1 << 20).unwrap(), data);
            let refusal = read(encoding, &sent, data.len() - 1, 1 << 20);
            assert_eq!(refusal.unwrap_err(), Refusal::TooLarge, "{encoding:?}");
        }
    }

    #[test]
    fn a_bare_deflate_stream_is_understood() {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"{}").unwrap();
        let sent = encoder.finish().unwrap();
        assert_eq!(read(Encoding::Deflate, &sent, 10, 10).unwrap(), "{}");
    }

    #[test]
    fn what_is_broken_is_unreadable_and_what_has_no_room_is_for_later() {
        for encoding in ALL {
            let refusal = read(encoding, b"{}", 100, 100).unwrap_err();
            assert_eq!(refusal, Refusal::BodyUnreadable, "{encoding:?}");
            let mut cut = compressed(encoding, &[b'x'; 5000]);
            cut.truncate(cut.len() / 2);
            let refusal = read(encoding, &cut, 10_000, 10_000).unwrap_err();
            assert_eq!(refusal, Refusal::BodyUnreadable, "{encoding:?}");
            let sent = compressed(encoding, &[b'x'; 5000]);
            let refusal = read(encoding, &sent, 10_000, 4000).unwrap_err();
            assert_eq!(refusal, Refusal::Overloaded, "{encoding:?}");
        }
    }

    #[test]
    fn a_frame_that_asks_for_much_memory_is_refused() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&[b'x'; 10]).unwrap();
        let sent = encoder.finish().unwrap();
        let refusal = read(Encoding::Zstd, &sent, 1000, 1000).unwrap_err();
        assert_eq!(refusal, Refusal::BodyUnreadable);
    }
}
