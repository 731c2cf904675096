//! Bodies: read with a cap, inflated with a cap, counted against what may be in memory at once.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;

use super::inflate::{self, Encoding};
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
        encoding => inflate::inflate(encoding, &sent, cap, taken),
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
    use super::*;
    use crate::gateway::limit::ByteBudget;

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
