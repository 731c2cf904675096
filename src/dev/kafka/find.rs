//! Which Kafka to use: a running cluster, an unpacked one, or the jars in our cache.

use std::path::{Path, PathBuf};

use super::error::LocalKafkaError;
use super::fetch;
use super::options::LocalKafkaOptions;

/// Kafka 4 logs through log4j2 and runs without ZooKeeper; the settings that we write assume both.
const KAFKA_MAJOR_MIN: u32 = 4;

/// What the environment asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// `SLUICE_BOOTSTRAP`: a cluster that somebody else runs.
    Cluster(String),
    /// `KAFKA_HOME`: an unpacked distribution.
    Home(PathBuf),
    /// Neither: the jars that Maven fetches.
    Jars,
}

/// Reads the wish from the environment. Empty variables count as unset, as a shell's `VAR= command` means.
pub(super) fn wanted(env: impl Fn(&str) -> Option<String>) -> Wanted {
    let set = |name| {
        env(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    };
    match (set("SLUICE_BOOTSTRAP"), set("KAFKA_HOME")) {
        (Some(bootstrap), _) => Wanted::Cluster(bootstrap),
        (None, Some(home)) => Wanted::Home(home.into()),
        (None, None) => Wanted::Jars,
    }
}

/// Jars that make a Kafka, in class path order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Kafka's version, from the name of its main jar.
    pub version: String,
    /// Where the jars were found, for the person at the terminal.
    pub origin: PathBuf,
    pub(super) jars: Vec<PathBuf>,
}

/// Finds the jars, fetching them if they are wanted from the cache and not there yet.
pub(super) fn distribution(
    wanted: &Wanted,
    options: &LocalKafkaOptions,
) -> Result<Distribution, LocalKafkaError> {
    match wanted {
        Wanted::Home(home) => from_home(home),
        // A cluster that runs elsewhere can still be passed over by a caller that must have its own (crash
        // tests).
        Wanted::Jars | Wanted::Cluster(_) => {
            let libs = fetch::cached_jars(&options.cache_dir, &options.progress)?;
            let jars = list_jars(&libs)?;
            Ok(Distribution {
                version: fetch::kafka_version().to_owned(),
                origin: libs,
                jars,
            })
        }
    }
}

fn from_home(home: &Path) -> Result<Distribution, LocalKafkaError> {
    let bad = |reason: String| LocalKafkaError::BadHome {
        path: home.to_owned(),
        reason,
    };
    let libs = home.join("libs");
    if !libs.is_dir() {
        return Err(bad(
            "there is no libs folder in it; it should be the top folder of an unpacked Kafka"
                .into(),
        ));
    }
    let jars = list_jars(&libs)?;
    let version = jars
        .iter()
        .find_map(|jar| version_of(&jar.file_name()?.to_string_lossy()))
        .ok_or_else(|| bad("there is no kafka_<scala>-<version>.jar in its libs folder".into()))?;
    if major(&version).is_none_or(|major| major < KAFKA_MAJOR_MIN) {
        return Err(bad(format!(
            "it is Kafka {version}, and {KAFKA_MAJOR_MIN}.0 or newer is needed; unset KAFKA_HOME to have one fetched"
        )));
    }
    Ok(Distribution {
        version,
        origin: home.to_owned(),
        jars,
    })
}

/// All jars of a folder, sorted: a class-data archive is only valid for the same jars in the same order.
fn list_jars(libs: &Path) -> Result<Vec<PathBuf>, LocalKafkaError> {
    let entries = std::fs::read_dir(libs).map_err(LocalKafkaError::io("list", libs))?;
    let mut jars = Vec::new();
    for entry in entries {
        let path = entry.map_err(LocalKafkaError::io("list", libs))?.path();
        if path.extension().is_some_and(|extension| extension == "jar") {
            jars.push(path);
        }
    }
    jars.sort();
    Ok(jars)
}

/// `kafka_2.13-4.4.0.jar` → `4.4.0`; also vendors' versions such as `4.0.0-ccs`.
fn version_of(file_name: &str) -> Option<String> {
    let (scala, version) = file_name
        .strip_prefix("kafka_")?
        .strip_suffix(".jar")?
        .split_once('-')?;
    let plain = scala
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
        && version.starts_with(|first: char| first.is_ascii_digit());
    // kafka_2.13-4.4.0-sources.jar and the like lie beside the real one in some packages.
    let extra = ["-sources", "-javadoc", "-test", "-scaladoc"]
        .iter()
        .any(|suffix| version.ends_with(suffix));
    (plain && !extra).then(|| version.to_owned())
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_cluster_goes_before_an_unpacked_one_and_that_before_the_cache() {
        let env = |bootstrap: &'static str, home: &'static str| {
            move |name: &str| match name {
                "SLUICE_BOOTSTRAP" => Some(bootstrap.to_owned()),
                "KAFKA_HOME" => Some(home.to_owned()),
                _ => None,
            }
        };
        assert_eq!(
            wanted(env("k:9092", "/opt/kafka")),
            Wanted::Cluster("k:9092".into())
        );
        assert_eq!(
            wanted(env(" ", "/opt/kafka")),
            Wanted::Home("/opt/kafka".into())
        );
        assert_eq!(wanted(env("", "")), Wanted::Jars);
        assert_eq!(wanted(|_| None), Wanted::Jars);
    }

    #[test]
    fn the_version_is_read_from_the_main_jar_only() {
        assert_eq!(version_of("kafka_2.13-4.4.0.jar").as_deref(), Some("4.4.0"));
        assert_eq!(
            version_of("kafka_2.13-8.0.0-ccs.jar").as_deref(),
            Some("8.0.0-ccs")
        );
        assert_eq!(version_of("kafka_2.13-4.4.0-sources.jar"), None);
        assert_eq!(version_of("kafka-clients-4.4.0.jar"), None);
        assert_eq!(version_of("kafka_tools-1.jar"), None);
    }

    #[test]
    fn an_old_or_wrong_home_is_refused_with_the_reason() {
        let home = tempfile::tempdir().unwrap();
        let text = |home: &Path| from_home(home).unwrap_err().to_string();
        assert!(text(home.path()).contains("no libs folder"));
        std::fs::create_dir(home.path().join("libs")).unwrap();
        assert!(text(home.path()).contains("no kafka_<scala>-<version>.jar"));
        std::fs::write(home.path().join("libs/kafka_2.13-3.9.1.jar"), b"").unwrap();
        assert!(text(home.path()).contains("it is Kafka 3.9.1"));
    }
}
