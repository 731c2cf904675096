//! Fetching Kafka's jars with Maven, once for each version and user.
//!
//! The list of jars is a pom that travels inside the binary, so that this works outside of a checkout too.
//! Maven brings what it is good at: mirrors, proxies, checksums, retries. The jars are copied into a folder
//! beside their final place and renamed, so a folder that exists is complete.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::error::LocalKafkaError;
use super::options::Progress;
use super::process::spawn_bound;

const POM: &str = include_str!("../../../dev/kafka/pom.xml");
/// How much of Maven's output an error shows.
const TAIL_LINES: usize = 15;
/// A progress line at most this often; Maven reports a few hundred files.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// The version in the pom.
pub(super) fn kafka_version() -> &'static str {
    POM.split_once("<kafka.version>")
        .and_then(|(_, rest)| rest.split_once("</kafka.version>"))
        .map(|(version, _)| version.trim())
        .expect("the pom is part of this source and a test reads its version")
}

/// The folder with the jars, filled first if need be.
pub(super) fn cached_jars(
    cache_dir: &Path,
    progress: &Progress,
) -> Result<PathBuf, LocalKafkaError> {
    let home = cache_dir.join(format!("kafka-{}", kafka_version()));
    let libs = home.join("libs");
    if libs.is_dir() {
        return Ok(libs);
    }
    let _lock = lock(&home, progress)?;
    // Another process may have fetched them while we waited.
    if !libs.is_dir() {
        fetch(&home, &libs, progress)?;
    }
    Ok(libs)
}

/// Holds the cache folder of one version against other processes until dropped (or until this process ends,
/// however it ends).
pub(super) fn lock(home: &Path, progress: &Progress) -> Result<File, LocalKafkaError> {
    fs::create_dir_all(home).map_err(LocalKafkaError::io("create", home))?;
    let path = home.join("lock");
    let file = File::create(&path).map_err(LocalKafkaError::io("create", &path))?;
    if file.try_lock().is_err() {
        progress("waiting for another process that prepares Apache Kafka");
        file.lock().map_err(LocalKafkaError::io("lock", &path))?;
    }
    Ok(file)
}

fn fetch(home: &Path, libs: &Path, progress: &Progress) -> Result<(), LocalKafkaError> {
    // Under the lock, so what an interrupted run left here is nobody's.
    let staging = home.join("fetching");
    remove_dir(&staging)?;
    fs::create_dir_all(&staging).map_err(LocalKafkaError::io("create", &staging))?;
    let pom = staging.join("pom.xml");
    fs::write(&pom, POM).map_err(LocalKafkaError::io("write", &pom))?;

    progress(&format!(
        "fetching Apache Kafka {} from Maven Central (once, 43 MB)",
        kafka_version()
    ));
    run_maven(&pom, &staging.join("libs"), progress)?;

    fs::rename(staging.join("libs"), libs).map_err(LocalKafkaError::io("rename into", libs))?;
    remove_dir(&staging)
}

fn run_maven(pom: &Path, output: &Path, progress: &Progress) -> Result<(), LocalKafkaError> {
    let mut command = Command::new("mvn");
    command
        .arg("--batch-mode")
        .arg("--file")
        .arg(pom)
        .arg("dependency:copy-dependencies")
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", output.display()))
        // Maven waits half an hour for a silent server; the first is for Maven 3.8 and older, the second for
        // 3.9 and newer.
        .args([
            "-Dmaven.wagon.rto=60000",
            "-Daether.connector.requestTimeout=60000",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = spawn_bound(command).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LocalKafkaError::NoMaven,
        _ => LocalKafkaError::Io {
            what: "run mvn".into(),
            source: error,
        },
    })?;
    let tail = match child.stdout.take() {
        Some(stdout) => follow(stdout, progress),
        None => String::new(),
    };
    let status = child.wait().map_err(|source| LocalKafkaError::Io {
        what: "wait for mvn".into(),
        source,
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(LocalKafkaError::Fetch { tail })
    }
}

/// Turns Maven's lines into progress and gives back the last of them.
fn follow(stdout: impl Read, progress: &Progress) -> String {
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    let mut shown = Instant::now();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match downloaded(&line) {
            Some(file) if shown.elapsed() >= PROGRESS_EVERY => {
                progress(&format!("fetching Apache Kafka: {file}"));
                shown = Instant::now();
            }
            Some(_) => {}
            None if line.contains("Downloading from") => {}
            None => {
                if tail.len() == TAIL_LINES {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
        }
    }
    Vec::from(tail).join("\n")
}

/// `[INFO] Downloaded from central: https://…/log4j-core-2.25.5.jar (2.0 MB at 3.7 MB/s)` →
/// `log4j-core-2.25.5.jar (2.0 MB)`
fn downloaded(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("Downloaded from ")?;
    let (url, size) = rest.split_once(" (")?;
    let file = url.rsplit('/').next()?;
    let size = size.split_once(" at ").map_or(size, |(size, _)| size);
    Some(format!("{file} ({size})"))
}

fn remove_dir(path: &Path) -> Result<(), LocalKafkaError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LocalKafkaError::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn the_pom_names_a_version() {
        assert!(
            kafka_version()
                .split('.')
                .all(|part| part.parse::<u32>().is_ok()),
            "{}",
            kafka_version()
        );
    }

    #[test]
    fn a_download_line_becomes_name_and_size() {
        let line = "[INFO] Downloaded from central: https://repo.maven.apache.org/maven2/org/x/log4j-core-2.25.5.jar (2.0 MB at 3.7 MB/s)";
        assert_eq!(
            downloaded(line).as_deref(),
            Some("log4j-core-2.25.5.jar (2.0 MB)")
        );
        assert_eq!(downloaded("[INFO] BUILD SUCCESS"), None);
    }

    #[test]
    fn the_tail_keeps_the_error_and_not_the_downloads() {
        let out = "[INFO] Downloading from central: https://x/a.jar\n[ERROR] no such host\n";
        let progress: Progress = Arc::new(|_| {});
        assert_eq!(follow(out.as_bytes(), &progress), "[ERROR] no such host");
    }

    #[test]
    fn a_second_process_waits_for_the_first_and_says_so() {
        let home = tempfile::tempdir().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let progress: Progress = {
            let said = Arc::clone(&said);
            Arc::new(move |line| said.lock().unwrap().push(line.to_owned()))
        };
        let first = lock(home.path(), &progress).unwrap();
        assert!(said.lock().unwrap().is_empty());
        let waiter = {
            let (home, progress) = (home.path().to_owned(), Arc::clone(&progress));
            std::thread::spawn(move || lock(&home, &progress).map(|_| ()))
        };
        while said.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        assert!(!waiter.is_finished());
        drop(first);
        waiter.join().unwrap().unwrap();
    }
}
