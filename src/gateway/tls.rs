//! HTTPS: certificate and key from files, read again when one of them changes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;
use crate::shutdown::Shutdown;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The certificate that new connections are shown.
#[derive(Debug)]
pub(super) struct Tls {
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files and follows their changes until shutdown. Files that do not fit together later (one is written after
    /// the other) leave the certificate as it was.
    ///
    /// # Errors
    /// When they cannot be used now.
    pub(super) fn follow(files: &TlsConfig, shutdown: &Shutdown) -> Result<Arc<Self>, String> {
        crate::tls::install();
        let mut seen = changed_at(files);
        let tls = Arc::new(Self {
            current: ArcSwap::from(read(files)?),
        });
        let (following, files, stopping) = (Arc::clone(&tls), files.clone(), shutdown.clone());
        drop(shutdown.spawn("gateway-tls", async move {
            loop {
                tokio::select! {
                    () = stopping.begun() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                let now = changed_at(&files);
                if now == seen {
                    continue;
                }
                match read(&files) {
                    Ok(config) => {
                        tracing::info!("the gateway's certificate changed");
                        following.current.store(config);
                        seen = now;
                    }
                    Err(error) => tracing::warn!(%error, "certificate kept as it was"),
                }
            }
        }));
        Ok(tls)
    }

    /// Shakes hands with the certificate as it is now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

fn read(files: &TlsConfig) -> Result<Arc<ServerConfig>, String> {
    let named = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&files.certificate_file)
            .and_then(Iterator::collect)
            .map_err(|error| named(&files.certificate_file, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file)
        .map_err(|error| named(&files.key_file, &error))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| named(&files.certificate_file, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn changed_at(files: &TlsConfig) -> [Option<(SystemTime, u64)>; 2] {
    [&files.certificate_file, &files.key_file].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}
