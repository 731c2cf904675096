//! The one HTTP client of all destinations: pooled, bounded, and wary of where it goes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::Method;
use ::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use bytes::Bytes;
use reqwest::redirect::Policy;
use url::{Host, Url};

use super::address::{Forbidden, PublicResolver, is_public};
use super::response::{self, BODY_READ_BYTES_MAX, HttpResponse};
use super::{Attempt, DeliveryError};
use crate::event::headers::{TRACEPARENT, cut};

/// `<messageId>:<destinationId>`: stable over retries and replays.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Where the accepted event lies: `<events topic>-<partition>-<offset>`.
pub const X_DELIVERY_ID: HeaderName = HeaderName::from_static("x-delivery-id");
/// Which try this is, from 1.
pub const X_ATTEMPT: HeaderName = HeaderName::from_static("x-attempt");

/// What we call ourselves.
pub const AGENT: &str = concat!("Sluice/", env!("CARGO_PKG_VERSION"));

/// Redirects followed in one attempt.
const REDIRECTS_MAX: usize = 5;

/// Settings of the client.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Longest time to connect, TLS included.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Unused connections kept for each host. Below the concurrency, every burst pays for new connections.
    pub idle_per_host: usize,
    /// Refuse addresses that are not on the public internet.
    pub block_private_ips: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            idle_per_host: 256,
            block_private_ips: false,
        }
    }
}

/// A request, ready but for what identifies the attempt.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// Method.
    pub method: Method,
    /// Full URL.
    pub url: Url,
    /// Headers.
    pub headers: HeaderMap,
    /// Body; empty for none.
    pub body: Bytes,
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("HTTP client: {0}")]
pub struct ClientError(#[source] reqwest::Error);

/// Sends requests. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: reqwest::Client,
    block_private_ips: bool,
}

impl HttpClient {
    /// A client with its own pool of connections.
    ///
    /// # Errors
    /// When the system has no usable TLS roots.
    pub fn new(options: &HttpOptions) -> Result<Self, ClientError> {
        crate::tls::install();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .pool_idle_timeout(options.idle_timeout)
            .pool_max_idle_per_host(options.idle_per_host)
            .tcp_nodelay(true)
            // A proxy resolves names itself and would pass the address check by.
            .no_proxy()
            .redirect(Policy::custom(|attempt| {
                let kept = attempt.previous().first().is_some_and(|first| {
                    may_follow(attempt.status().as_u16(), first, attempt.url())
                });
                if kept && attempt.previous().len() <= REDIRECTS_MAX {
                    attempt.follow()
                } else {
                    attempt.stop()
                }
            }));
        if options.block_private_ips {
            builder = builder.dns_resolver(Arc::new(PublicResolver));
        }
        Ok(Self {
            client: builder.build().map_err(ClientError)?,
            block_private_ips: options.block_private_ips,
        })
    }

    /// Sends `request` as `attempt`, with the headers that every delivery carries, and reads the answer.
    ///
    /// # Errors
    /// When there is no complete answer. `secrets` are kept out of what is said.
    pub async fn send(
        &self,
        attempt: &Attempt<'_>,
        mut request: HttpRequest,
        secrets: &[String],
    ) -> Result<HttpResponse, DeliveryError> {
        if self.block_private_ips {
            refuse_private_literal(&request.url)?;
        }
        identify(attempt, &mut request.headers)?;
        let outgoing = self
            .client
            .request(request.method, request.url)
            .headers(request.headers)
            .body(request.body)
            .timeout(attempt.timeout);
        let failed = |error| failure(error, attempt.timeout, secrets);
        let mut answer = outgoing.send().await.map_err(failed)?;
        let status = answer.status();
        // Read also when it is of no interest: an answer left unread costs the connection.
        let mut body = Vec::new();
        while body.len() < BODY_READ_BYTES_MAX {
            match answer.chunk().await.map_err(failed) {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                // The status is the answer; a body that breaks off does not take it back.
                Err(_) => break,
            }
        }
        let header = |name| answer.headers().get(name).and_then(|v| v.to_str().ok());
        Ok(HttpResponse {
            status: status.as_u16(),
            retry_after: header(RETRY_AFTER).and_then(|v| response::retry_after(v, attempt.now)),
            body: if status.is_success() {
                String::new()
            } else {
                response::keep(header(CONTENT_TYPE), &body, secrets)
            },
        })
    }
}

/// Whether a redirect may be followed: only those that keep method and body (307, 308; after a 302 the client would turn a
/// POST into a GET, and its 200 would count as delivered), and only on the same host, which has our headers already.
fn may_follow(status: u16, first: &Url, next: &Url) -> bool {
    matches!(status, 307 | 308)
        && next.host() == first.host()
        && (next.scheme() == first.scheme() || next.scheme() == "https")
}

/// Names are checked when they are resolved; addresses written in the URL are never resolved.
fn refuse_private_literal(url: &Url) -> Result<(), DeliveryError> {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        Some(Host::Domain(_)) => return Ok(()),
        None => {
            return Err(DeliveryError::Unrequestable("URL has no host".to_owned()));
        }
    };
    if is_public(ip) {
        return Ok(());
    }
    Err(DeliveryError::ForbiddenAddress {
        host: ip.to_string(),
    })
}

/// Adds what every delivery carries. Set last, so that neither settings nor events can forge it.
fn identify(attempt: &Attempt<'_>, headers: &mut HeaderMap) -> Result<(), DeliveryError> {
    headers.insert(IDEMPOTENCY_KEY, value(&attempt.delivery.idempotency_key())?);
    headers.insert(X_DELIVERY_ID, value(&attempt.delivery_id())?);
    headers.insert(X_ATTEMPT, HeaderValue::from(attempt.number));
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(AGENT));
    let trace = &attempt.delivery.envelope.traceparent;
    if !trace.is_empty()
        && let Ok(trace) = HeaderValue::from_str(trace)
    {
        headers
            .entry(HeaderName::from_static(TRACEPARENT))
            .or_insert(trace);
    }
    Ok(())
}

/// A header value; what HTTP cannot carry (control characters) is percent-encoded, so that any message id makes a key.
fn value(text: &str) -> Result<HeaderValue, DeliveryError> {
    if let Ok(value) = HeaderValue::from_str(text) {
        return Ok(value);
    }
    let mut encoded = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_ascii_control() {
            encoded.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            encoded.push(c);
        }
    }
    HeaderValue::from_str(&encoded)
        .map_err(|_| DeliveryError::Unrequestable("message id makes no header".to_owned()))
}

/// Sorts the client's errors by what they say about the service.
fn failure(error: reqwest::Error, timeout: Duration, secrets: &[String]) -> DeliveryError {
    if let Some(Forbidden(host)) = find_source::<Forbidden>(&error) {
        return DeliveryError::ForbiddenAddress { host: host.clone() };
    }
    let is_connect = error.is_connect();
    if error.is_timeout() && !is_connect {
        return DeliveryError::TimedOut { after: timeout };
    }
    if error.is_builder() {
        return DeliveryError::Unrequestable(text(&error.without_url(), secrets));
    }
    let text = text(&error.without_url(), secrets);
    if is_connect {
        DeliveryError::Unreachable(text)
    } else {
        DeliveryError::Interrupted(text)
    }
}

fn find_source<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(found) = source.downcast_ref() {
            return Some(found);
        }
        next = source.source();
    }
    None
}

/// The innermost cause says the most: `connection refused` rather than `error sending request`.
fn text(error: &reqwest::Error, secrets: &[String]) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    cut(&response::redact(&innermost.to_string(), secrets), 500).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_never_changes_method_or_host() {
        let url = |text: &str| Url::parse(text).unwrap();
        let first = url("http://a.example/hook");
        assert!(may_follow(308, &first, &url("https://a.example/hook")));
        assert!(may_follow(307, &first, &url("http://a.example/other")));
        assert!(!may_follow(302, &first, &url("http://a.example/other")));
        assert!(!may_follow(308, &first, &url("http://169.254.169.254/")));
        let secure = url("https://a.example/hook");
        assert!(
            !may_follow(308, &secure, &first),
            "never back to plain text"
        );
    }

    #[test]
    fn a_message_id_of_any_characters_makes_a_key() {
        assert_eq!(value("a:b").unwrap(), "a:b");
        assert_eq!(value("a\nb:c").unwrap(), "a%0Ab:c");
        assert!(value("ümläut:d").is_ok());
    }
}
