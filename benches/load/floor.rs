//! The two comparisons: librdkafka alone, and the least that a gateway can do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, util::Timeout};
use tokio::sync::oneshot;

use crate::proc::Usage;

/// The gateway's producer settings.
fn settings(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", "0")
        .set("max.in.flight", "1")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144");
    config
}

#[derive(Default)]
struct Count {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

#[derive(Clone)]
struct Counting(Arc<Count>);
impl ClientContext for Counting {}
impl ProducerContext for Counting {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() {
            &self.0.acknowledged
        } else {
            &self.0.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What librdkafka alone reached.
#[derive(Debug)]
pub struct Raw {
    /// Acknowledged records a second.
    pub per_second: f64,
    /// CPU time of the whole process per record.
    pub cpu_per_record: Duration,
    /// Mean payload.
    pub mean_bytes: usize,
}

/// Sends `records` round and round for `duration` and waits for every acknowledgement.
pub fn raw_producer(
    bootstrap: &str,
    topic: &str,
    records: &[(Vec<u8>, Vec<u8>)],
    duration: Duration,
) -> Result<Raw> {
    let counts = Arc::new(Count::default());
    let producer: ThreadedProducer<Counting> =
        settings(bootstrap).create_with_context(Counting(Arc::clone(&counts)))?;
    // The first record pays for connecting and for the producer id.
    let (key, payload) = records.first().context("no records to send")?;
    producer
        .send(BaseRecord::to(topic).key(key).payload(payload))
        .map_err(|(e, _)| e)?;
    producer.flush(Timeout::After(Duration::from_secs(20)))?;
    let before = Usage::of(std::process::id());
    let (started, mut sent) = (Instant::now(), 0_u64);
    'sending: loop {
        for (key, payload) in records {
            let mut record = BaseRecord::to(topic).key(key).payload(payload);
            while let Err((error, back)) = producer.send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    return Err(error.into());
                }
                record = back;
                std::thread::sleep(Duration::from_micros(200));
            }
            sent += 1;
            if sent.is_multiple_of(1024) && started.elapsed() >= duration {
                break 'sending;
            }
        }
    }
    producer.flush(Timeout::After(Duration::from_secs(60)))?;
    let elapsed = started.elapsed();
    let cpu = Usage::of(std::process::id()).cpu_since(&before);
    let acknowledged = counts.acknowledged.load(Ordering::Relaxed) - 1;
    let failed = counts.failed.load(Ordering::Relaxed);
    anyhow::ensure!(failed == 0, "{failed} records were not acknowledged");
    Ok(Raw {
        per_second: acknowledged as f64 / elapsed.as_secs_f64(),
        cpu_per_record: cpu / u32::try_from(acknowledged.max(1))?,
        mean_bytes: records.iter().map(|(_, p)| p.len()).sum::<usize>() / records.len(),
    })
}

struct Waking;
impl ClientContext for Waking {}
impl ProducerContext for Waking {
    type DeliveryOpaque = Box<oneshot::Sender<bool>>;
    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        // A client that went away does not wait any more.
        let _gone = waiting.send(result.is_ok());
    }
}

/// Serves the least gateway until it is killed: the body as one acknowledged record, then the answer.
pub async fn least_gateway(bootstrap: &str, topic: String, listen: SocketAddr) -> Result<()> {
    let producer: ThreadedProducer<Waking> = settings(bootstrap).create_with_context(Waking)?;
    let state = Arc::new((producer, topic));
    let routes = Router::new()
        .route("/v1/track", post(accept))
        .route("/v1/batch", post(accept))
        .route("/health", axum::routing::get(|| async { "ok" }))
        .with_state(state);
    let listener = tokio::net::TcpListener::bind(listen).await?;
    axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |tcp| drop(tcp.set_nodelay(true))),
        routes,
    )
    .await?;
    Ok(())
}

async fn accept(
    State(state): State<Arc<(ThreadedProducer<Waking>, String)>>,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let (sender, acknowledged) = oneshot::channel();
    let record =
        BaseRecord::<[u8], [u8], _>::with_opaque_to(&state.1, Box::new(sender)).payload(&body[..]);
    if state.0.send(record).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "busy");
    }
    match acknowledged.await {
        Ok(true) => (StatusCode::OK, "OK"),
        Ok(false) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not acknowledged"),
    }
}
