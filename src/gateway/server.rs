//! The listener: a bounded number of connections, closed when their clients are too slow, drained in order.
//!
//! `axum::serve` bounds neither connections nor how slowly a client may send, so the loop is ours; requests go to the same
//! `axum::Router`.

use std::convert::Infallible;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::arrival;
use super::connection::{Connection, Patience, Phase, Watched};
use super::cors::Cors;
use super::metrics::GatewayMetrics;
use super::routes;
use super::tls::Tls;
use crate::event::headers::TRACEPARENT;

/// What the listener needs to know.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) connections_max: usize,
    pub(super) header_bytes_max: usize,
    pub(super) retry_after_max: u32,
    pub(super) patience: Patience,
    pub(super) cors: Cors,
    pub(super) tls: Option<Arc<Tls>>,
}

/// Accepts connections until told to stop.
pub(super) struct Server {
    router: Router,
    settings: Arc<Settings>,
    metrics: Arc<GatewayMetrics>,
    connections: TaskTracker,
    draining: CancellationToken,
}

/// Connections that are turned away and still read from; more are closed at once.
const TURNED_AWAY_MAX: usize = 256;
/// How long a client that is turned away may take to read that and to close.
const TURNED_AWAY_FOR: Duration = Duration::from_secs(1);

impl Server {
    pub(super) fn new(router: Router, settings: Settings, metrics: Arc<GatewayMetrics>) -> Self {
        Self {
            router,
            settings: Arc::new(settings),
            metrics,
            connections: TaskTracker::new(),
            draining: CancellationToken::new(),
        }
    }

    /// Accepts connections until `stop` resolves; the listener is closed then, its connections go on.
    pub(super) async fn accept(&self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(self.settings.connections_max));
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    wait_after(&error).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                self.metrics
                    .connections_refused_total
                    .with_label_values::<&str>(&[])
                    .inc();
                // Whoever wants TLS could not read the answer, and a handshake is what there is no room for.
                if self.settings.tls.is_none()
                    && let Ok(room) = Arc::clone(&turned_away).try_acquire_owned()
                {
                    let turning = turn_away(socket, self.settings.retry_after_max);
                    self.connections.spawn(async move {
                        turning.await;
                        drop(room);
                    });
                }
                continue;
            };
            // Answers are small and whole; waiting to fill a packet would only delay them.
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
            let open = self.metrics.connections.with_label_values::<&str>(&[]);
            open.inc();
            let serving = shake_hands_and_serve(
                socket,
                Connection::new(peer),
                self.router.clone(),
                Arc::clone(&self.settings),
                Arc::clone(&self.metrics),
                self.draining.clone(),
            );
            let metrics = Arc::clone(&self.metrics);
            self.connections.spawn(async move {
                // One client's request must not end the others': a panic is a bug that is counted, not a way out.
                if AssertUnwindSafe(serving).catch_unwind().await.is_err() {
                    tracing::error!(%peer, "a connection's task panicked");
                    let panicked = metrics
                        .connections_panicked_total
                        .with_label_values::<&str>(&[]);
                    panicked.inc();
                }
                open.dec();
                drop(slot);
            });
        }
    }

    /// Lets every connection finish the request it has, at most until `deadline`. Returns how many were cut off.
    pub(super) async fn drain(&self, deadline: Instant) -> usize {
        self.draining.cancel();
        self.connections.close();
        match tokio::time::timeout_at(deadline.into(), self.connections.wait()).await {
            Ok(()) => 0,
            Err(_) => self.connections.len(),
        }
    }
}

/// Out of file descriptors or memory: trying again at once would be a busy loop. Anything else was one client's problem.
async fn wait_after(error: &io::Error) {
    const OUT_OF: [i32; 4] = [
        nix::errno::Errno::EMFILE as i32,
        nix::errno::Errno::ENFILE as i32,
        nix::errno::Errno::ENOBUFS as i32,
        nix::errno::Errno::ENOMEM as i32,
    ];
    if error
        .raw_os_error()
        .is_some_and(|code| OUT_OF.contains(&code))
    {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Answers without a look at the request. What was not read when a socket is closed makes the kernel reset the connection,
/// which destroys the answer on its way (RFC 9112, 9.6); so what still comes is read and thrown away for a moment.
async fn turn_away(mut socket: TcpStream, retry_after_max: u32) {
    let seconds = fastrand::u32(1..=retry_after_max.max(1));
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {seconds}\r\nConnection: close\r\n\
         Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 20\r\n\r\n\
         service unavailable\n"
    );
    let turning = async {
        socket.write_all(answer.as_bytes()).await?;
        socket.shutdown().await?;
        tokio::io::copy(&mut socket, &mut tokio::io::sink()).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(TURNED_AWAY_FOR, turning).await {
        tracing::debug!(%error, "client gone before it was turned away");
    }
}

async fn shake_hands_and_serve(
    socket: TcpStream,
    connection: Arc<Connection>,
    router: Router,
    settings: Arc<Settings>,
    metrics: Arc<GatewayMetrics>,
    draining: CancellationToken,
) {
    let Some(tls) = &settings.tls else {
        return serve(socket, connection, router, settings, metrics, draining).await;
    };
    let shaking = tls.acceptor().accept(socket);
    match tokio::time::timeout(settings.patience.head, shaking).await {
        Ok(Ok(socket)) => {
            connection.enter(Phase::Silent);
            serve(socket, connection, router, settings, metrics, draining).await;
        }
        Ok(Err(error)) => {
            let failed = metrics
                .tls_handshakes_failed_total
                .with_label_values::<&str>(&[]);
            failed.inc();
            tracing::debug!(%error, peer = connection.peer_text, "no TLS handshake");
        }
        Err(_) => {
            let timed_out = &metrics.connections_timed_out_total;
            timed_out.with_label_values(&["handshake"]).inc();
        }
    }
}

async fn serve<S>(
    socket: S,
    connection: Arc<Connection>,
    router: Router,
    settings: Arc<Settings>,
    metrics: Arc<GatewayMetrics>,
    draining: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Watched::new(socket, Arc::clone(&connection)));
    let (seen, shared) = (Arc::clone(&connection), Arc::clone(&settings));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        answer(
            router.clone(),
            Arc::clone(&shared),
            Arc::clone(&seen),
            request,
        )
    });
    let http = http1::Builder::new()
        .max_header_size(settings.header_bytes_max)
        .header_read_timeout(None)
        .serve_connection(io, service);
    tokio::pin!(http);
    let mut asked_to_end = false;
    loop {
        let left = connection.time_left(&settings.patience);
        if left.is_zero() {
            let phase = connection.phase().name();
            metrics
                .connections_timed_out_total
                .with_label_values(&[phase])
                .inc();
            return;
        }
        tokio::select! {
            ended = http.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, peer = connection.peer_text, "connection ended");
                }
                return;
            }
            () = draining.cancelled(), if !asked_to_end => {
                asked_to_end = true;
                http.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(left) => {}
        }
    }
}

async fn answer(
    mut router: Router,
    settings: Arc<Settings>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    connection.enter(Phase::Body);
    if let Some(response) = settings.cors.preflight(&request) {
        connection.enter(Phase::Idle);
        return Ok(response);
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let trace = trace(request.headers());
    let mut request = request.map(Body::new);
    routes::normalise_path(&mut request);
    request.extensions_mut().insert(Arc::clone(&connection));
    let Ok(mut response) = router.call(request).await;
    settings
        .cors
        .decorate(origin.as_ref(), response.headers_mut());
    if let Some(trace) = trace {
        let name = HeaderName::from_static(TRACEPARENT);
        response.headers_mut().insert(name, trace);
    }
    connection.enter(Phase::Idle);
    Ok(response)
}

/// The client's trace context, which its answer brings back. A client that sends none gets none: nobody would know it, and
/// each of its events would carry it to the end.
fn trace(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(TRACEPARENT)?;
    let valid = value.to_str().is_ok_and(|v| !arrival::w3c(v).is_empty());
    valid.then(|| value.clone())
}
