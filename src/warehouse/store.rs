//! The object store that staging files and manifests lie in.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use crate::config::ObjectStoreConfig;
use crate::fault::{Classify, Fault};

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A process with warehouse destinations needs one.
    #[error("warehouse.object_store.url is not set; set it to file:///… or s3://bucket/prefix")]
    Missing,
    /// The settings cannot be used.
    #[error("warehouse.object_store: {0}")]
    Settings(String),
    /// The folder cannot be made.
    #[error("warehouse.object_store.url: {path}: {source}")]
    Folder {
        /// The folder.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The store refuses the settings.
    #[error("warehouse.object_store: {0}")]
    Refused(#[from] object_store::Error),
}

impl Classify for StoreError {
    fn fault(&self) -> Fault {
        match self {
            Self::Missing | Self::Settings(_) | Self::Folder { .. } | Self::Refused(_) => {
                Fault::Fatal
            }
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Missing => "object_store_missing",
            Self::Settings(_) => "object_store_settings",
            Self::Folder { .. } => "object_store_folder",
            Self::Refused(_) => "object_store_refused",
        }
    }
}

/// Opens the store and names the folder in it that is ours. Does not touch the network.
///
/// # Errors
/// The settings cannot be used, or a local folder cannot be made.
pub fn open(config: &ObjectStoreConfig) -> Result<(Arc<dyn ObjectStore>, Path), StoreError> {
    let url = config.url.as_deref().ok_or(StoreError::Missing)?;
    let url = url::Url::parse(url).map_err(|error| StoreError::Settings(error.to_string()))?;
    match url.scheme() {
        "file" => {
            let folder = url
                .to_file_path()
                .map_err(|()| StoreError::Settings(format!("{url} is not a path")))?;
            std::fs::create_dir_all(&folder).map_err(|source| StoreError::Folder {
                path: folder.display().to_string(),
                source,
            })?;
            // A manifest that was acknowledged is on disk, and so are the files it names: they were written before.
            let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
            Ok((Arc::new(store), Path::default()))
        }
        "s3" => s3(config, &url),
        other => Err(StoreError::Settings(format!(
            "{other}:// is not a store that this build knows"
        ))),
    }
}

#[cfg(feature = "s3")]
fn s3(
    config: &ObjectStoreConfig,
    url: &url::Url,
) -> Result<(Arc<dyn ObjectStore>, Path), StoreError> {
    use std::time::Duration;

    use object_store::RetryConfig;
    use object_store::aws::AmazonS3Builder;

    // Before the first HTTP client is built.
    crate::tls::install();
    let bucket = url
        .host_str()
        .ok_or_else(|| StoreError::Settings(format!("{url} names no bucket")))?;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_region(config.region.as_deref().unwrap_or("us-east-1"))
        .with_allow_http(config.allow_http)
        // Waiting out an outage is our business: it must not hide behind one call.
        .with_retry(RetryConfig {
            max_retries: 3,
            retry_timeout: Duration::from_secs(20),
            ..RetryConfig::default()
        });
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_access_key) {
        builder = builder
            .with_access_key_id(id)
            .with_secret_access_key(secret.expose());
    }
    let prefix = Path::parse(url.path().trim_matches('/'))
        .map_err(|error| StoreError::Settings(error.to_string()))?;
    Ok((Arc::new(builder.build()?), prefix))
}

#[cfg(not(feature = "s3"))]
fn s3(
    _config: &ObjectStoreConfig,
    _url: &url::Url,
) -> Result<(Arc<dyn ObjectStore>, Path), StoreError> {
    Err(StoreError::Settings(
        "this build has no S3 (cargo feature `s3`)".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> ObjectStoreConfig {
        ObjectStoreConfig {
            url: Some(url.to_owned()),
            ..ObjectStoreConfig::default()
        }
    }

    #[test]
    fn a_local_folder_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        open(&config(&format!("file://{}", path.display()))).unwrap();
        assert!(path.is_dir());
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_bucket_opens_with_its_prefix_and_shows_no_secret() {
        let mut config = config("s3://bucket/some/prefix");
        config.access_key_id = Some("id".into());
        config.secret_access_key = Some(crate::config::Secret::new("hunter2"));
        let (store, prefix) = open(&config).unwrap();
        assert_eq!(prefix.as_ref(), "some/prefix");
        assert!(!format!("{store:?}{config:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_no_store_is_refused_with_the_key_to_set() {
        let missing = open(&ObjectStoreConfig::default()).unwrap_err();
        assert!(missing.to_string().contains("warehouse.object_store.url"));
        assert!(open(&config("ftp://x/y")).is_err());
    }
}
