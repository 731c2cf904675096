//! One TLS provider for the process.

/// Makes `ring` the process's TLS provider. Called before the first HTTP client or listener is made; idempotent.
pub fn install() {
    // An error only says that one is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
}
