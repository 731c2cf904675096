//! Reading a broker's last words.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// At most this much of a log is looked at.
const READ_BYTES_MAX: u64 = 256 << 10;
/// Lines that look like the reason, and lines from the end, that an error shows.
const REASONS_MAX: usize = 8;
const LAST_MAX: usize = 8;

/// What was written to the file after `offset`, as text. A missing file is empty; a log that was rolled
/// meanwhile is read from its beginning.
pub(super) fn since(path: &Path, offset: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let from = if offset > length { 0 } else { offset };
        file.seek(SeekFrom::Start(
            from.max(length.saturating_sub(READ_BYTES_MAX)),
        ))?;
        let mut bytes = Vec::new();
        file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
        // A killed writer can leave half a character.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// The lines worth showing: those that tell the reason, and the last ones. A failed start ends with a screen
/// of stack trace and orderly shutdown, so that the plain tail often lacks the reason. Pure.
pub(super) fn excerpt(log: &str) -> String {
    let lines: Vec<_> = log
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("at "))
        .collect();
    let last_from = lines.len().saturating_sub(LAST_MAX);
    let tells = |line: &&&str| {
        [
            " ERROR ",
            " FATAL ",
            "Exception: ",
            "Error: ",
            "Caused by: ",
        ]
        .iter()
        .any(|sign| line.contains(sign))
    };
    let reasons = lines[..last_from].iter().filter(tells).take(REASONS_MAX);
    let shown: Vec<_> = reasons
        .chain(&lines[last_from..])
        .map(|line| format!("    {line}"))
        .collect();
    shown.join("\n")
}

/// The likely fix, for endings that are known. Pure.
pub(super) fn hint(log: &str) -> Option<&'static str> {
    const KNOWN: &[(&str, &str)] = &[
        (PORT_IN_USE, "another program took its port; start again"),
        (
            "UnsupportedClassVersionError",
            "this Java is too old for this Kafka; point JAVA_HOME at Java 17 or newer",
        ),
        (
            "Failed to acquire lock on file",
            "another Kafka works on this data directory; stop it first",
        ),
        (
            "Could not reserve enough space",
            "there is not enough memory for the Java heap; make it smaller or free some",
        ),
        (
            "There is insufficient memory",
            "there is not enough memory for the Java runtime; free some",
        ),
        (
            "OutOfMemoryError",
            "the Java heap is too small; make it larger",
        ),
        ("No space left on device", "the disk is full"),
        (
            "Permission denied",
            "the data directory belongs to another user",
        ),
    ];
    KNOWN
        .iter()
        .find(|(sign, _)| log.contains(sign))
        .map(|(_, hint)| *hint)
}

/// What the broker logs when a port that was free a moment ago no longer is.
pub(super) const PORT_IN_USE: &str = "Address already in use";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_start_wrote_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("broker.log");
        assert_eq!(since(&log, 0), "");
        std::fs::write(&log, "old ERROR\nnew\n").unwrap();
        assert_eq!(since(&log, 10), "new\n");
        assert_eq!(
            since(&log, 9_999),
            "old ERROR\nnew\n",
            "a rolled log starts anew"
        );
    }

    #[test]
    fn the_reason_is_shown_even_when_a_long_shutdown_follows_it() {
        let mut log = String::from(
            "INFO starting\n2026 ERROR BrokerServer: Fatal error\njava.net.BindException: Address already in use\n",
        );
        for line in 0..100 {
            log.push_str(&format!(
                "\tat org.apache.kafka.Thing{line}\n2026 INFO stopping {line}\n"
            ));
        }
        let shown = excerpt(&log);
        assert!(shown.starts_with("    2026 ERROR BrokerServer: Fatal error\n    java.net.BindException: Address already in use\n"), "{shown}");
        assert!(shown.ends_with("stopping 99"));
        assert_eq!(shown.lines().count(), 2 + LAST_MAX);
    }

    #[test]
    fn a_taken_port_and_an_old_java_are_recognised() {
        assert!(
            hint("java.net.BindException: Address already in use")
                .is_some_and(|hint| hint.contains("port"))
        );
        assert!(
            hint("java.lang.UnsupportedClassVersionError: kafka/Kafka")
                .is_some_and(|hint| hint.contains("Java"))
        );
        assert_eq!(hint("something new"), None);
    }
}
