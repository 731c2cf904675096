//! RudderStack's transformer service, for webhook sources: what a third party posted goes there, events come back.
//!
//! ```text
//! webhook ─▶ gather ─┬─ up to 32 requests of one source type, or 20 ms
//!                    ├─ client    POST {url}/v2/sources/{type}, tried again for ten seconds
//!                    └─ contract  the answer, element by element ─▶ webhook
//! ```
//!
//! Nothing is kept here: a request waits for its part of the answer, and what is not answered in time ends in 503, so that
//! the third party sends it again.

mod client;
pub(super) mod contract;
mod gather;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::config::SourceTransformerConfig;
use crate::fault::Classify;
use crate::shutdown::Shutdown;

use super::GatewayError;
use super::limit::{ByteBudget, Taken};
use super::metrics::GatewayMetrics;
use super::refusal::Refusal;
use client::{Client, TransformerError};
use contract::Outcome;
use gather::{Gather, Joined};

/// What becomes of one request.
type Answer = Result<Outcome, Refusal>;

/// A request that waits for others of its type.
#[derive(Debug)]
struct Waiting {
    element: String,
    answer: oneshot::Sender<Answer>,
    /// For the element and its copy in the batch.
    _taken: Taken,
}

/// The transformer. Cheap to clone; clones share connections and batches.
#[derive(Debug, Clone)]
pub(super) struct Transformer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    gather: Gather<Waiting>,
    wait: Duration,
    timeout: Duration,
    batches: Semaphore,
    forward_get: Vec<String>,
    budget: Arc<ByteBudget>,
    metrics: Arc<GatewayMetrics>,
    shutdown: Shutdown,
}

impl Transformer {
    /// The transformer of the settings; `None` when they name none.
    ///
    /// # Errors
    /// When the system has no usable TLS roots.
    pub(super) fn open(
        config: &SourceTransformerConfig,
        budget: &Arc<ByteBudget>,
        metrics: &Arc<GatewayMetrics>,
        shutdown: &Shutdown,
    ) -> Result<Option<Self>, GatewayError> {
        let Some(url) = config.base_url() else {
            return Ok(None);
        };
        Ok(Some(Self {
            inner: Arc::new(Inner {
                client: Client::new(url, config)?,
                gather: Gather::new(config.batch_requests_max),
                wait: Duration::from_millis(config.batch_wait_ms),
                timeout: Duration::from_millis(config.timeout_ms),
                batches: Semaphore::new(config.batches_in_flight_max),
                forward_get: config.forward_get.clone(),
                budget: Arc::clone(budget),
                metrics: Arc::clone(metrics),
                shutdown: shutdown.clone(),
            }),
        }))
    }

    /// Whether a GET of this source type (in lower case) is an event.
    pub(super) fn takes_get(&self, source_type: &str) -> bool {
        self.inner.forward_get.iter().any(|t| t == source_type)
    }

    /// What the transformer makes of `element`, a request to a source of `source_type` (in lower case).
    ///
    /// # Errors
    /// [`Refusal::Overloaded`] when there is no memory for it, [`Refusal::TransformerAway`] when there was no answer in
    /// time, and what is wrong with the answer.
    pub(super) async fn translate(&self, source_type: &str, element: String) -> Answer {
        let mut taken = self.inner.budget.taker();
        if !taken.take(2 * element.len()) {
            return Err(Refusal::Overloaded);
        }
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            element,
            answer,
            _taken: taken,
        };
        match self.inner.gather.join(source_type, waiting) {
            Joined::Waits => {}
            Joined::Full(batch) => self.send(source_type, batch),
            Joined::First(number) => self.send_later(source_type, number),
        }
        // A batch whose task broke off was not answered.
        answered.await.unwrap_or(Err(Refusal::TransformerAway))
    }

    fn send_later(&self, source_type: &str, number: u64) {
        let (this, source_type) = (self.clone(), source_type.to_owned());
        drop(self.inner.shutdown.spawn("source-transformer", async move {
            tokio::time::sleep(this.inner.wait).await;
            if let Some(batch) = this.inner.gather.close(&source_type, number) {
                this.inner.exchange(&source_type, batch).await;
            }
        }));
    }

    fn send(&self, source_type: &str, batch: Vec<Waiting>) {
        let (inner, source_type) = (Arc::clone(&self.inner), source_type.to_owned());
        drop(self.inner.shutdown.spawn("source-transformer", async move {
            inner.exchange(&source_type, batch).await;
        }));
    }
}

impl Inner {
    /// Sends a batch and answers each of its requests.
    async fn exchange(&self, source_type: &str, batch: Vec<Waiting>) {
        let began = Instant::now();
        let elements: Vec<&str> = batch.iter().map(|w| w.element.as_str()).collect();
        let body = Bytes::from(contract::batch(&elements));
        let mut taken = self.budget.taker();
        let answer = self
            .ask(source_type, body, began + self.timeout, &mut taken)
            .await;
        let (outcome, answers) = match answer {
            Ok(answer) => match contract::read(&answer, batch.len()) {
                Some(answers) => ("ok", answers),
                None => ("unreadable", refuse_all(Refusal::TransformerAnswer, &batch)),
            },
            Err(error) => {
                tracing::warn!(%error, source.kind = source_type, requests = batch.len(), "webhooks were not translated");
                (error.code(), refuse_all(Refusal::from(&error), &batch))
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        let labels = [source_type];
        let metrics = &self.metrics;
        metrics
            .source_transformer_seconds
            .with_label_values(&labels)
            .observe(seconds);
        metrics
            .source_transformer_batches_total
            .with_label_values(&[source_type, outcome])
            .inc();
        for (waiting, answer) in batch.into_iter().zip(answers) {
            // A client that went away no longer waits.
            drop(waiting.answer.send(answer));
        }
    }

    async fn ask(
        &self,
        source_type: &str,
        body: Bytes,
        until: Instant,
        taken: &mut Taken,
    ) -> Result<Bytes, TransformerError> {
        let turn = tokio::time::timeout_at(until, self.batches.acquire()).await;
        // Never closed.
        let _turn = turn.map_err(|_| TransformerError::TimedOut)?;
        self.client.post(source_type, body, until, taken).await
    }
}

fn refuse_all(refusal: Refusal, batch: &[Waiting]) -> Vec<Answer> {
    batch.iter().map(|_| Err(refusal)).collect()
}
