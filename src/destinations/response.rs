//! What an answer means, and what is kept of it. Pure.
//!
//! RudderStack's rules: 2xx is delivered, 298 was filtered on purpose; 408, 429, 5xx and network errors are tried again;
//! every other status is final. Two additions: 425 (Too Early) asks for a retry by its definition (RFC 8470), and
//! `Retry-After` is honoured, which RudderStack does not do.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::event::headers::cut;
use crate::fault::Fault;

use super::{Accepted, DeliveryError};

/// Most of an answer's body that is read, in bytes (RudderStack's 10 KB).
pub const BODY_READ_BYTES_MAX: usize = 10 * 1024;

/// Most of an answer's body that is kept, in bytes.
pub const BODY_KEPT_BYTES_MAX: usize = 2 * 1024;

/// An answer, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpResponse {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, as a wait from now.
    pub retry_after: Option<Duration>,
    /// What to keep of the body; empty for 2xx.
    pub body: String,
}

/// What a status asks for.
pub fn fault(status: u16, after: Option<Duration>) -> Fault {
    match status {
        408 | 425 | 429 | 500.. => Fault::Transient { after },
        _ => Fault::Permanent,
    }
}

/// Whether an answer ends the event well.
///
/// # Errors
/// [`DeliveryError::Status`] for every status but 2xx; its [`fault`] says whether to try again.
pub fn classify(response: HttpResponse) -> Result<Accepted, DeliveryError> {
    match response.status {
        298 => Ok(Accepted::Filtered),
        status @ 200..=299 => Ok(Accepted::Delivered { status }),
        status => Err(DeliveryError::Status {
            status,
            body: response.body,
            after: response.retry_after,
        }),
    }
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110 §10.2.3). A date in the past is no wait; what is neither is ignored.
pub fn retry_after(value: &str, now: UnixMs) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(value).ok()?;
    let wait = date.timestamp_millis().saturating_sub(now);
    Some(Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
}

/// What to keep of a body: text of at most [`BODY_KEPT_BYTES_MAX`] bytes, without `secrets`; a note in place of anything
/// that is not text (as RudderStack does: pictures and archives in error stores help nobody).
pub fn keep(content_type: Option<&str>, body: &[u8], secrets: &[String]) -> String {
    let kind = content_type.unwrap_or("text/plain").to_ascii_lowercase();
    let is_text = ["text", "json", "xml", "javascript", "form-urlencoded"]
        .iter()
        .any(|word| kind.contains(word));
    if !is_text {
        return format!("[{} bytes of {} not kept]", body.len(), cut(&kind, 80));
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(BODY_READ_BYTES_MAX)]);
    // Redacted before it is cut: half a secret at the end would stay.
    let text = redact(text.trim(), secrets);
    cut(&text, BODY_KEPT_BYTES_MAX).to_owned()
}

/// `text` with every one of `secrets` replaced by `***`.
pub fn redact(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), "***");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Classify;

    fn answer(status: u16) -> Result<Accepted, DeliveryError> {
        classify(HttpResponse {
            status,
            ..HttpResponse::default()
        })
    }

    #[test]
    fn every_status_means_what_rudderstack_takes_it_for() {
        for status in 200..=299 {
            let expected = match status {
                298 => Accepted::Filtered,
                status => Accepted::Delivered { status },
            };
            assert_eq!(answer(status).unwrap(), expected);
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599, 809] {
            assert_eq!(
                answer(status).unwrap_err().fault(),
                Fault::RETRY,
                "{status}"
            );
        }
        for status in [
            100, 301, 302, 304, 307, 400, 401, 403, 404, 409, 410, 413, 422, 451,
        ] {
            let error = answer(status).unwrap_err();
            assert_eq!(error.fault(), Fault::Permanent, "{status}");
        }
    }

    #[test]
    fn a_wait_that_the_server_asks_for_is_read_in_both_spellings() {
        let now = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        let wait = |text| retry_after(text, now);
        assert_eq!(wait(" 120 "), Some(Duration::from_secs(120)));
        let date = "Sun, 06 Nov 1994 08:49:47 GMT";
        assert_eq!(wait(date), Some(Duration::from_secs(10)));
        let past = "Sun, 06 Nov 1994 08:49:27 GMT";
        assert_eq!(wait(past), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
    }

    #[test]
    fn an_answer_is_kept_short_and_without_secrets() {
        let secrets = ["s3cr3t-token".to_owned()];
        let kept = keep(
            Some("application/json"),
            b"{\"bad\":\"s3cr3t-token\"}",
            &secrets,
        );
        assert_eq!(kept, "{\"bad\":\"***\"}");
        let long = format!("{}s3cr3t-token", "x".repeat(BODY_KEPT_BYTES_MAX - 4));
        let kept = keep(None, long.as_bytes(), &secrets);
        assert!(!kept.contains("s3cr") && kept.len() <= BODY_KEPT_BYTES_MAX);
        let picture = keep(Some("image/png"), &[0x89, b'P'], &[]);
        assert_eq!(picture, "[2 bytes of image/png not kept]");
        assert_eq!(keep(None, &[0xff, b'a'], &[]), "\u{fffd}a");
    }
}
