//! Bodies: read with a cap, inflated with a cap, counted against what may be in memory at once.

use std::io::Read;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;

use super::limit::Taken;
use super::refusal::Refusal;

/// Reads a body of at most `cap` bytes, as sent and as inflated.
///
/// # Errors
/// [`Refusal::TooLarge`] as soon as more than `cap` bytes are announced, have come or came out, [`Refusal::Overloaded`]
/// when `taken`'s budget is used up, [`Refusal::BodyUnreadable`] when the client went away or its compression is broken.
pub(super) async fn read(
    body: &mut Body,
    headers: &HeaderMap,
    cap: usize,
    taken: &mut Taken,
) -> Result<Bytes, Refusal> {
    let sent = collect(body, cap, taken).await?;
    match Encoding::of(headers) {
        Encoding::Identity => Ok(sent),
        Encoding::Gzip => inflate(gzip(&sent), sent.len(), cap, taken),
    }
}

/// How a body is compressed. An encoding that is not known is taken for none, as RudderStack does: such a body is then no
/// JSON.
enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Self {
        match headers.get(header::CONTENT_ENCODING).map(|v| v.as_bytes()) {
            Some(b"gzip") => Self::Gzip,
            Some(_) | None => Self::Identity,
        }
    }
}

async fn collect(body: &mut Body, cap: usize, taken: &mut Taken) -> Result<Bytes, Refusal> {
    let announced = http_body::Body::size_hint(body).lower();
    if announced > cap as u64 {
        return Err(Refusal::TooLarge);
    }
    // Most bodies come in one piece, which is then handed on without a copy.
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Refusal::BodyUnreadable);
        };
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        len += piece.len();
        if len > cap {
            return Err(Refusal::TooLarge);
        }
        if !taken.take(piece.len()) {
            return Err(Refusal::Overloaded);
        }
        match (first.take(), all.is_empty()) {
            (None, true) => first = Some(piece),
            (Some(before), _) => {
                all.reserve(
                    before.len() + piece.len().max(usize::try_from(announced).unwrap_or(0)),
                );
                all.extend_from_slice(&before);
                all.extend_from_slice(&piece);
            }
            (None, false) => all.extend_from_slice(&piece),
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

// The one place that inflates what comes from outside; `inflate` counts what comes out.
#[allow(clippy::disallowed_types)]
fn gzip(sent: &[u8]) -> impl Read + '_ {
    flate2::read::MultiGzDecoder::new(sent)
}

fn inflate(
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

/// Reads what is left of a refused request and throws it away, up to `most` bytes: a connection that is closed while the
/// client still writes loses the answer on its way (RFC 9112, 9.6).
pub(super) async fn discard(body: &mut Body, most: usize) {
    let mut left = most;
    while let Some(Ok(frame)) = body.frame().await {
        let len = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(len) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::gateway::limit::ByteBudget;

    fn gzipped(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    async fn read_gzip(sent: Vec<u8>, cap: usize, budget: usize) -> Result<Bytes, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        let budget = ByteBudget::new(budget);
        read(&mut Body::from(sent), &headers, cap, &mut budget.taker()).await
    }

    #[tokio::test]
    async fn a_bomb_is_refused_before_it_is_inflated() {
        let bomb = gzipped(&vec![0; 50 << 20]);
        assert!(bomb.len() < 100_000);
        let refusal = read_gzip(bomb, 1 << 20, 4 << 20).await.unwrap_err();
        assert_eq!(refusal, Refusal::TooLarge);
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_cap_is_taken_and_one_byte_more_is_not() {
        let data: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let read = read_gzip(gzipped(&data), data.len(), 1 << 20)
            .await
            .unwrap();
        assert_eq!(read, data);
        let refusal = read_gzip(gzipped(&data), data.len() - 1, 1 << 20).await;
        assert_eq!(refusal.unwrap_err(), Refusal::TooLarge);
    }

    #[tokio::test]
    async fn what_is_no_gzip_is_unreadable_and_what_has_no_room_is_for_later() {
        let refusal = read_gzip(b"{}".to_vec(), 100, 100).await.unwrap_err();
        assert_eq!(refusal, Refusal::BodyUnreadable);
        let refusal = read_gzip(gzipped(&[b'x'; 5000]), 10_000, 4000)
            .await
            .unwrap_err();
        assert_eq!(refusal, Refusal::Overloaded);
    }

    #[tokio::test]
    async fn pieces_are_put_together_in_order_and_capped_as_they_come() {
        let budget = ByteBudget::new(100);
        let pieces = |n: usize| {
            let pieces = (0..n).map(|i| Ok::<_, std::io::Error>(Bytes::from(i.to_string())));
            Body::from_stream(futures_util::stream::iter(pieces))
        };
        let headers = HeaderMap::new();
        let read_all = read(&mut pieces(10), &headers, 10, &mut budget.taker()).await;
        assert_eq!(read_all.unwrap(), "0123456789");
        let refusal = read(&mut pieces(12), &headers, 10, &mut budget.taker()).await;
        assert_eq!(refusal.unwrap_err(), Refusal::TooLarge);
        assert_eq!(budget.used(), 0);
    }
}
