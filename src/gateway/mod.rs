//! HTTP to `events`.
//!
//! ```text
//! socket ─▶ server ─▶ routes ─▶ accept ─┬─ auth      whose write key
//!                                       ├─ body      read and inflate, with caps
//!                                       ├─ repair    what is no text
//!                                       ├─ payload   one pass over the JSON: the events, as slices of the body
//!                                       ├─ admit     event → envelope, or a refusal
//!                                       ├─ outbox    all envelopes → one buffer → Kafka
//!                                       └─ reply     after the last acknowledgement
//! ```
//!
//! **200 means that every event of the request is acknowledged by all in-sync replicas.** Nothing of a request is sent
//! before all of it is read, checked and encoded, and nothing is answered before Kafka has answered. A request that Kafka
//! does not acknowledge in time is answered with 503 and `Retry-After`; its events may be written all the same, and what
//! the client sends again is recognised by its message id later.
//!
//! With `gateway.spill` a 200 means: all in-sync replicas *or this machine's disk*; see [`spill`].
//!
//! Strings, codes and the order of checks are RudderStack's, because its clients depend on them.

mod accept;
mod admit;
mod arrival;
mod auth;
mod body;
mod callers;
mod connection;
mod cors;
mod error;
mod gcra;
mod inflate;
mod inputs;
mod json;
mod limit;
mod log;
pub mod metrics;
mod openapi;
mod outbox;
mod payload;
mod refusal;
mod repair;
mod reply;
mod routes;
mod select;
mod send;
mod server;
mod spill;
mod status;
mod suppress;
#[doc(hidden)]
pub mod testing;
mod tls;
mod transformer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::config::{GatewayConfig, Mode};
use crate::deps::{Deps, Role, RoleError};
use crate::event::{SchemaName, Topic};
use crate::kafka::AckProducer;
use crate::shutdown::Shutdown;
use crate::telemetry::health::Part;

use admit::Rules;
use callers::Directory;
use connection::Patience;
use cors::Cors;
use gcra::Allowance;
use json::Bounds;
use limit::ByteBudget;
use metrics::{GatewayMetrics, RouteMetrics};
use outbox::Outbox;
use payload::PayloadBounds;
use routes::Route;
use server::{Server, Settings};
use spill::{Spill, Surroundings};
use suppress::Suppression;
use tls::Tls;
use transformer::Transformer;

pub use error::GatewayError;
pub use spill::{SpillError, SpillMetrics};

/// Room for what Kafka's protocol adds to a record.
const RECORD_OVERHEAD: usize = 1_024;
/// How often the brokers' health is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// Time kept from the drain for queued records and the producer's end.
const FLUSH: Duration = Duration::from_secs(2);

/// How large a request may be, and what it may hold.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Bytes of the body, as sent and as inflated.
    body_bytes: usize,
    payload: PayloadBounds,
}

/// What every request needs.
struct Gateway {
    config: GatewayConfig,
    directory: Arc<Directory>,
    suppression: Arc<Suppression>,
    clock: Arc<dyn Clock>,
    producer: AckProducer,
    /// For webhook sources of other services.
    transformer: Option<Transformer>,
    outbox: Outbox,
    spill: Option<Spill>,
    budget: Arc<ByteBudget>,
    bounds: PayloadBounds,
    audience_list: Limits,
    rules: Rules,
    /// What requests to the internal batch route have announced.
    announced: Allowance,
    metrics: Arc<GatewayMetrics>,
    routes: RouteMetrics,
    shutdown: Shutdown,
    started: Instant,
}

/// Starts the gateway: it listens when this returns. [`Role::done`] resolves when every request it took is answered.
///
/// # Errors
/// When the address cannot be had or the settings cannot be used.
pub async fn start(deps: Deps) -> Result<Role, GatewayError> {
    let config = deps.config.gateway.clone();
    // The spill reads what an earlier life left.
    let opening = {
        let deps = deps.clone();
        move || Gateway::new(&deps)
    };
    let gateway = tokio::task::spawn_blocking(opening)
        .await
        .map_err(|_| GatewayError::Panicked)??;
    let gateway = Arc::new(gateway);
    let listener =
        TcpListener::bind(config.listen)
            .await
            .map_err(|source| GatewayError::Listen {
                listen: config.listen,
                source,
            })?;
    let address = listener
        .local_addr()
        .map_err(|source| GatewayError::Listen {
            listen: config.listen,
            source,
        })?;
    let ready = deps.health.part("gateway");
    drop(
        deps.shutdown
            .spawn("gateway-health", watch_health(Arc::clone(&gateway), ready)),
    );
    let server = Server::new(
        routes::router(Arc::clone(&gateway)),
        Settings {
            connections_max: config.connections_max,
            header_bytes_max: config.header_bytes_max,
            retry_after_max: config.retry_after_s_max,
            cors: Cors::new(&config.cors_origins),
            tls: match &config.tls {
                Some(files) => Some(Tls::follow(files, &deps.shutdown).map_err(GatewayError::Tls)?),
                None => None,
            },
            patience: Patience {
                idle: Duration::from_millis(config.idle_timeout_ms),
                head: Duration::from_millis(config.header_timeout_ms),
                body: Duration::from_millis(config.body_timeout_ms),
            },
        },
        Arc::clone(&gateway.metrics),
    );
    tracing::info!(%address, "gateway listens on {address}");
    let grace = config.drain_grace_ms.unwrap_or(match deps.config.mode {
        Mode::Production => 5_000,
        Mode::Dev => 0,
    });
    let run = run(gateway, server, listener, Duration::from_millis(grace));
    Ok(Role {
        name: "gateway",
        address: Some(address),
        done: tokio::spawn(run),
    })
}

/// Serves until shutdown, then drains: readiness goes first (it follows the signal), connections are accepted for
/// `grace` more, those that are open finish what they have, and the producer ends last.
async fn run(
    gateway: Arc<Gateway>,
    server: Server,
    listener: TcpListener,
    grace: Duration,
) -> Result<(), RoleError> {
    let shutdown = gateway.shutdown.clone();
    let (grace, left) = share_drain(shutdown.drain_timeout(), grace);
    let stop = async {
        shutdown.begun().await;
        tokio::time::sleep(grace).await;
    };
    server.accept(listener, stop).await;
    let cut_off = server.drain(Instant::now() + left).await;
    if cut_off > 0 {
        tracing::warn!(
            connections = cut_off,
            "{cut_off} connections did not end in time"
        );
    }
    drop(server);
    // Ending the spill and the producer blocks.
    let ending = move || {
        if let Some(spill) = &gateway.spill {
            spill.stop();
        }
        gateway.producer.flush(FLUSH)
    };
    let flushed = tokio::task::spawn_blocking(ending).await;
    match flushed {
        // Whatever was not acknowledged was not answered with 200 either.
        Ok(Err(error)) => tracing::warn!(%error, "records were still unacknowledged at the end"),
        Ok(Ok(())) => {}
        Err(error) => return Err(error.into()),
    }
    tracing::info!("gateway drained");
    Ok(())
}

/// What of the time `drain` goes to accepting on, at most half of it, and what is left then for the requests in hand.
fn share_drain(drain: Duration, grace: Duration) -> (Duration, Duration) {
    let grace = grace.min(drain / 2);
    (grace, drain.saturating_sub(grace).saturating_sub(FLUSH))
}

/// Keeps readiness and gauges in step with the producer.
async fn watch_health(gateway: Arc<Gateway>, ready: Part) {
    let producer = gateway.producer.clone();
    // Nothing has been sent yet, so nothing would tell that the brokers are there.
    drop(tokio::task::spawn_blocking(move || {
        producer.ping(Duration::from_secs(30))
    }));
    while !gateway.shutdown.is_begun() {
        ready.set(gateway.takes_events());
        if let Some(spill) = &gateway.spill {
            spill.observe(gateway.clock.now_ms());
        }
        let metrics = &gateway.metrics;
        let none: [&str; 0] = [];
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics
            .body_bytes_in_flight
            .with_label_values(&none)
            .set(count(gateway.budget.used()));
        let replaced = i64::try_from(gateway.producer.replaced()).unwrap_or(i64::MAX);
        metrics
            .producer_replaced_total
            .with_label_values(&none)
            .set(replaced);
        tokio::select! {
            () = gateway.shutdown.begun() => {}
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
        }
    }
    ready.set(false);
}

impl Gateway {
    /// Whether events can be taken, as far as is known: Kafka is there, or the spill has room.
    fn takes_events(&self) -> bool {
        self.producer.healthy() || self.spill.as_ref().is_some_and(Spill::has_room)
    }

    /// What a request to `route` may be.
    fn limits(&self, route: Route) -> Limits {
        match route {
            Route::AudienceList => self.audience_list,
            _ => Limits {
                body_bytes: self.config.body_bytes_max,
                payload: self.bounds,
            },
        }
    }

    /// Blocks; inside a runtime.
    fn new(deps: &Deps) -> Result<Self, GatewayError> {
        let config = deps.config.gateway.clone();
        let metrics = metrics::register(&deps.metrics);
        let kafka = &deps.config.kafka;
        let budget = ByteBudget::new(config.in_flight_bytes_max);
        let topic = deps.topics.name(&Topic::Events);
        let bounds = PayloadBounds {
            event: Bounds {
                depth: config.json_depth_max,
                values: config.json_values_max,
            },
            events: config.batch_events_max,
        };
        let audience_list = Limits {
            body_bytes: config.audience_list_bytes(kafka.producer.message_bytes_max),
            payload: PayloadBounds {
                event: Bounds {
                    values: config.audience_list_values_max,
                    ..bounds.event
                },
                ..bounds
            },
        };
        let spill = match &config.spill {
            Some(spill) => Some(Spill::open(&Surroundings {
                config: spill,
                kafka,
                topic: &topic,
                request_bytes: config.body_bytes_max.max(audience_list.body_bytes),
                queue_bytes_max: config.in_flight_bytes_max,
                metrics: &deps.metrics,
                shutdown: &deps.shutdown,
            })?),
            None => None,
        };
        Ok(Self {
            spill,
            transformer: Transformer::open(
                &config.source_transformer,
                &budget,
                &metrics,
                &deps.shutdown,
            )?,
            directory: Directory::follow(
                &deps.control,
                &config.rate_limit,
                &metrics,
                &deps.shutdown,
            ),
            suppression: Suppression::follow(
                config.suppression_file.clone(),
                config.suppressed_users_max,
                &deps.shutdown,
            )
            .map_err(GatewayError::Suppression)?,
            started: Instant::now(),
            clock: Arc::clone(&deps.clock),
            producer: AckProducer::open(kafka, "gateway")?,
            outbox: Outbox {
                topic,
                framing: deps.schemas.framing(SchemaName::Envelope),
                record_bytes_max: kafka
                    .producer
                    .message_bytes_max
                    .saturating_sub(RECORD_OVERHEAD),
            },
            budget,
            bounds,
            audience_list,
            rules: Rules {
                allow_anonymous: config.allow_missing_ids,
            },
            announced: Allowance::default(),
            routes: RouteMetrics::of(&metrics),
            metrics,
            shutdown: deps.shutdown.clone(),
            config,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_grace_leaves_time_for_the_requests_in_hand() {
        let seconds = Duration::from_secs;
        for (drain, grace, shares) in [(25, 5, (5, 18)), (20, 60, (10, 8)), (2, 5, (1, 0))] {
            let shared = share_drain(seconds(drain), seconds(grace));
            assert_eq!(
                shared,
                (seconds(shares.0), seconds(shares.1)),
                "{drain}, {grace}"
            );
        }
    }
}
