//! One exchange with the transformer, tried again while it may help.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::config::SourceTransformerConfig;
use crate::fault::{Classify, Fault};
use crate::retry::Backoff;

use super::super::GatewayError;
use super::super::limit::Taken;
use super::super::refusal::Refusal;

/// Why a batch has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransformerError {
    #[error("source transformer: {0}")]
    Unreachable(#[source] reqwest::Error),
    #[error("source transformer: no answer in time")]
    TimedOut,
    #[error("source transformer answered {0}")]
    Status(u16),
    #[error(
        "source transformer: the answer is larger than gateway.source_transformer.response_bytes_max"
    )]
    TooLarge,
    #[error("source transformer: no memory left for the answer")]
    Overloaded,
}

impl Classify for TransformerError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Overloaded => Fault::RETRY,
            Self::Status(408 | 429 | 500..=599) => Fault::RETRY,
            Self::Status(_) | Self::TooLarge => Fault::Permanent,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Overloaded => "overloaded",
        }
    }
}

impl From<&TransformerError> for Refusal {
    fn from(error: &TransformerError) -> Self {
        match error {
            TransformerError::Overloaded => Self::Overloaded,
            TransformerError::TooLarge => Self::TransformerAnswer,
            TransformerError::Unreachable(_)
            | TransformerError::TimedOut
            | TransformerError::Status(_) => {
                if error.fault().is_transient() {
                    Self::TransformerAway
                } else {
                    Self::TransformerStatus
                }
            }
        }
    }
}

/// The HTTP client of the transformer.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    attempts_max: u32,
    backoff: Backoff,
    response_bytes_max: usize,
}

impl Client {
    /// A client for the transformer at `url`.
    ///
    /// # Errors
    /// When the system has no usable TLS roots.
    pub(super) fn new(url: Url, config: &SourceTransformerConfig) -> Result<Self, GatewayError> {
        crate::tls::install();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .tcp_nodelay(true)
            // It stands beside us; a proxy is the way out.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| GatewayError::Transformer(error.to_string()))?;
        Ok(Self {
            http,
            url,
            attempts_max: config.attempts_max,
            backoff: Backoff::new(
                Duration::from_millis(config.backoff_base_ms),
                Duration::from_millis(config.backoff_cap_ms),
            ),
            response_bytes_max: config.response_bytes_max,
        })
    }

    /// Posts `body` to the route of `source_type` until it is answered, `until` at the latest. What the answer takes of
    /// memory is taken from `taken`.
    ///
    /// # Errors
    /// The last attempt's.
    pub(super) async fn post(
        &self,
        source_type: &str,
        body: Bytes,
        until: Instant,
        taken: &mut Taken,
    ) -> Result<Bytes, TransformerError> {
        let url = route(&self.url, source_type);
        let mut attempt = 1;
        loop {
            let exchange = self.once(url.clone(), body.clone(), taken);
            let error = match timeout_at(until, exchange).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => return Err(TransformerError::TimedOut),
            };
            let wait = self.backoff.delay(attempt);
            let again = attempt < self.attempts_max && Instant::now() + wait < until;
            if !again || !error.fault().is_transient() {
                return Err(error);
            }
            tracing::debug!(%error, attempt, "tried again");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    async fn once(
        &self,
        url: Url,
        body: Bytes,
        taken: &mut Taken,
    ) -> Result<Bytes, TransformerError> {
        // The address is nobody's business who reads the log of a failure.
        let failed = |error: reqwest::Error| TransformerError::Unreachable(error.without_url());
        let request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .body(body);
        let mut answer = request.send().await.map_err(failed)?;
        if answer.status() != http::StatusCode::OK {
            return Err(TransformerError::Status(answer.status().as_u16()));
        }
        let mut all = BytesMut::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            if all.len() + piece.len() > self.response_bytes_max {
                return Err(TransformerError::TooLarge);
            }
            if !taken.take(piece.len()) {
                return Err(TransformerError::Overloaded);
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

/// `{url}/v2/sources/{type}`.
fn route(url: &Url, source_type: &str) -> Url {
    let mut route = url.clone();
    // Settings take only URLs that have a path.
    if let Ok(mut path) = route.path_segments_mut() {
        path.pop_if_empty().extend(["v2", "sources", source_type]);
    }
    route
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_may_have_a_path_and_a_type_may_have_odd_characters() {
        let of = |url: &str, kind: &str| route(&Url::parse(url).unwrap(), kind).to_string();
        assert_eq!(
            of("http://t:9090", "shopify"),
            "http://t:9090/v2/sources/shopify"
        );
        assert_eq!(
            of("http://t/base/", "a b/c?"),
            "http://t/base/v2/sources/a%20b%2Fc%3F"
        );
    }
}
