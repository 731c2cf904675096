//! The gateway behind TLS of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sluice::config::TlsConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::client::post_json;
use crate::support::gateway::TestGateway;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/fixtures/tls")
        .join(name)
}

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(fixture(name)).unwrap()
}

async fn connect(gateway: &TestGateway) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")).unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(gateway.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}

async fn post(gateway: &TestGateway, stream: &mut TlsStream<TcpStream>) -> String {
    let request = post_json(gateway.address, "/v1/track", "K", br#"{"userId":"u"}"#);
    stream.write_all(&request).await.unwrap();
    let mut answer = vec![0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsConfig {
        certificate_file: dir.path().join("tls.pem"),
        key_file: dir.path().join("tls.key"),
    };
    let renew = |name: &str| {
        std::fs::copy(fixture(&format!("{name}.pem")), &files.certificate_file).unwrap();
        std::fs::copy(fixture(&format!("{name}.key")), &files.key_file).unwrap();
    };
    renew("first");
    let gateway = TestGateway::start_with("sources: [{id: web, write_key: K}]", |config| {
        config.gateway.tls = Some(files.clone());
    })
    .await;
    let mut old = connect(&gateway).await.unwrap();
    assert_eq!(shown(&old), certificate("first.pem"));
    assert_eq!(post(&gateway, &mut old).await, "HTTP/1.1 200 OK");
    // A certificate whose key is not there yet must not take the listener down.
    std::fs::copy(fixture("second.pem"), &files.certificate_file).unwrap();
    connect(&gateway).await.unwrap();
    renew("second");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let mut new = connect(&gateway).await.unwrap();
        if shown(&new) == certificate("second.pem") {
            assert_eq!(post(&gateway, &mut new).await, "HTTP/1.1 200 OK");
            break;
        }
        assert!(
            std::time::Instant::now() < until,
            "still the old certificate"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // The rest of the first answer, and then another request on the same connection.
    let mut rest = vec![0; 1024];
    let _ = old.read(&mut rest).await.unwrap();
    assert_eq!(post(&gateway, &mut old).await, "HTTP/1.1 200 OK");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_gets_no_further_than_the_handshake() {
    let gateway = TestGateway::start_with("sources: [{id: web, write_key: K}]", |config| {
        config.gateway.tls = Some(TlsConfig {
            certificate_file: fixture("first.pem"),
            key_file: fixture("first.key"),
        });
    })
    .await;
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let request = post_json(gateway.address, "/v1/track", "K", br#"{"userId":"u"}"#);
    socket.write_all(&request).await.unwrap();
    let mut said = Vec::new();
    drop(socket.read_to_end(&mut said).await);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    let metrics = gateway.metrics.render();
    assert!(
        metrics.contains("sluice_gateway_tls_handshakes_failed_total 1"),
        "{metrics}"
    );
    assert_eq!(gateway.records().await.len(), 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_silent_after_its_handshake_has_no_longer_than_one_without_tls() {
    let gateway = TestGateway::start_with("sources: [{id: web, write_key: K}]", |config| {
        config.gateway.header_timeout_ms = 1_000;
        config.gateway.tls = Some(TlsConfig {
            certificate_file: fixture("first.pem"),
            key_file: fixture("first.key"),
        });
    })
    .await;
    let mut silent = connect(&gateway).await.unwrap();
    let mut said = Vec::new();
    let closed = silent.read_to_end(&mut said);
    let closed = tokio::time::timeout(std::time::Duration::from_secs(30), closed).await;
    assert!(closed.is_ok(), "still open");
    let metrics = gateway.metrics.render();
    let line = "sluice_gateway_connections_timed_out_total{phase=\"silent\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_hears_nothing_that_is_not_tls() {
    let gateway = TestGateway::start_with("sources: [{id: web, write_key: K}]", |config| {
        config.gateway.connections_max = 1;
        config.gateway.tls = Some(TlsConfig {
            certificate_file: fixture("first.pem"),
            key_file: fixture("first.key"),
        });
    })
    .await;
    let mut first = connect(&gateway).await.unwrap();
    assert_eq!(post(&gateway, &mut first).await, "HTTP/1.1 200 OK");
    let mut second = TcpStream::connect(gateway.address).await.unwrap();
    let mut said = Vec::new();
    second.read_to_end(&mut said).await.unwrap();
    assert!(said.is_empty(), "{said:?}");
    assert!(connect(&gateway).await.is_err(), "there is no room");
    gateway.stop().await;
}
