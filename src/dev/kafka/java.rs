//! Finding a Java runtime that is new enough.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::LocalKafkaError;

/// Kafka 4's brokers need Java 17 (KIP-1013).
const JAVA_MAJOR_MIN: u32 = 17;

/// A runtime that can run Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Java {
    pub(super) path: PathBuf,
    /// All that `java -version` says: a class-data archive is valid for exactly this build.
    pub(super) banner: String,
}

/// The first runtime that is new enough: `JAVA_HOME`, then `java` on the path, then what Debian keeps under
/// `/usr/lib/jvm`. The last matters on machines whose default is an older Java.
pub(super) fn find() -> Result<Java, LocalKafkaError> {
    let mut seen = Vec::new();
    for path in candidates(std::env::var_os("JAVA_HOME"), Path::new("/usr/lib/jvm")) {
        let Some(banner) = banner(&path) else {
            continue;
        };
        match major(&banner) {
            Some(major) if major >= JAVA_MAJOR_MIN => return Ok(Java { path, banner }),
            Some(major) => seen.push(format!("{} is Java {major}", path.display())),
            None => seen.push(format!("{} does not say its version", path.display())),
        }
    }
    let found = if seen.is_empty() {
        "looked at JAVA_HOME, PATH and /usr/lib/jvm".to_owned()
    } else {
        seen.join(", ")
    };
    Err(LocalKafkaError::NoJava {
        needed: JAVA_MAJOR_MIN,
        found,
    })
}

fn candidates(java_home: Option<OsString>, jvm_dir: &Path) -> Vec<PathBuf> {
    let home = java_home
        .filter(|home| !home.is_empty())
        .map(|home| Path::new(&home).join("bin/java"));
    let mut installed: Vec<_> = std::fs::read_dir(jvm_dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/java"))
        .filter(|java| java.exists())
        .collect();
    installed.sort();
    home.into_iter()
        .chain([PathBuf::from("java")])
        .chain(installed)
        .collect()
}

/// What `java -version` prints (on standard error), or nothing if it cannot be run.
fn banner(java: &Path) -> Option<String> {
    let output = Command::new(java)
        .arg("-version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// `openjdk version "17.0.15" 2025-04-15` → 17, and `java version "1.8.0_402"` → 8.
fn major(banner: &str) -> Option<u32> {
    let version = banner
        .lines()
        .find_map(|line| line.split_once(" version \"").map(|(_, rest)| rest))?;
    let mut numbers = version
        .split(|byte: char| !byte.is_ascii_digit())
        .filter_map(|number| number.parse().ok());
    match numbers.next()? {
        1 => numbers.next(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_style_of_banner() {
        assert_eq!(
            major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"),
            Some(17)
        );
        assert_eq!(
            major("Picked up JAVA_TOOL_OPTIONS: -Xx\nopenjdk version \"25\" 2025-09-16"),
            Some(25)
        );
        assert_eq!(major("java version \"1.8.0_402\""), Some(8));
        assert_eq!(major("openjdk version \"22-ea\" 2024-03-19"), Some(22));
        assert_eq!(major("command not found"), None);
    }

    #[test]
    fn java_home_is_tried_before_the_path_and_installed_runtimes_last() {
        let jvm = tempfile::tempdir().unwrap();
        let java = jvm.path().join("java-21/bin/java");
        std::fs::create_dir_all(java.parent().unwrap()).unwrap();
        std::fs::write(&java, b"").unwrap();
        std::fs::create_dir(jvm.path().join("not-a-jvm")).unwrap();
        assert_eq!(
            candidates(Some("/opt/java".into()), jvm.path()),
            [
                PathBuf::from("/opt/java/bin/java"),
                "java".into(),
                java.clone()
            ]
        );
        assert_eq!(candidates(None, jvm.path()), [PathBuf::from("java"), java]);
    }
}
