//! The class-data archive: Kafka's classes parsed and verified once, then mapped at every start.
//!
//! It is made by running a broker that has nothing to do and stopping it, once for each combination of Java
//! build and jars. Not by the first real run: tests kill their broker and would never finish one, and a user
//! who presses Ctrl-C should not wait for it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster::Cluster;
use super::error::LocalKafkaError;
use super::fetch;
use super::find::Distribution;
use super::java::Java;
use super::jvm::{Archive, Jvm};
use super::options::{ClusterSize, LocalKafkaOptions};

/// Writing 50 MB of archive takes three seconds on an idle machine.
const MAKE_WITHIN: Duration = Duration::from_secs(60);

/// The archive to start with, made now if there is none. It only saves time, so that every failure just means
/// none.
pub(super) fn ready(
    java: &Java,
    distribution: &Distribution,
    options: &LocalKafkaOptions,
) -> Archive {
    let home = options
        .cache_dir
        .join(format!("kafka-{}", distribution.version));
    let path = home.join(format!(
        "classes-{:016x}.jsa",
        fingerprint(java, &distribution.jars)
    ));
    // Left by an attempt that failed, so that it is not repeated at every start.
    let failed = path.with_extension("failed");
    if path.exists() {
        return Archive::Use(path);
    }
    if failed.exists() {
        return Archive::None;
    }
    match make(java, distribution, options, &home, &path) {
        Ok(()) => Archive::Use(path),
        Err(error) => {
            tracing::warn!(%error, "could not make a class-data archive, kafka will start more slowly");
            // Without it the attempt is repeated, no more.
            let _noted = fs::write(&failed, error.to_string());
            Archive::None
        }
    }
}

fn make(
    java: &Java,
    distribution: &Distribution,
    options: &LocalKafkaOptions,
    home: &Path,
    path: &Path,
) -> Result<(), LocalKafkaError> {
    let _lock = fetch::lock(home, &options.progress)?;
    if path.exists() {
        return Ok(());
    }
    (options.progress)("preparing Apache Kafka for fast starts (once)");
    let staged = home.join("making.jsa");
    let jvm = Jvm {
        java: java.clone(),
        distribution: distribution.clone(),
        heap_mib: options.heap_mib,
        archive: Archive::Make(staged.clone()),
    };
    let warm_up = LocalKafkaOptions {
        data_dir: home.join("making"),
        size: ClusterSize::One,
        keep_data: false,
        stop_grace: MAKE_WITHIN,
        broker_settings: Vec::new(),
        ..options.clone()
    };
    let cluster = Cluster::start(jvm, warm_up)?;
    cluster.stop()?;
    fs::rename(&staged, path).map_err(LocalKafkaError::io("keep", &staged))
}

/// What the archive is valid for. Java compares the same things itself and passes over an archive that does
/// not fit; this only finds the right file.
fn fingerprint(java: &Java, jars: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    java.banner.hash(&mut hasher);
    for jar in jars {
        jar.hash(&mut hasher);
        if let Ok(metadata) = fs::metadata(jar) {
            (metadata.len(), metadata.modified().ok()).hash(&mut hasher);
        }
    }
    hasher.finish()
}
