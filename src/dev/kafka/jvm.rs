//! The command line of Kafka's Java programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::find::Distribution;
use super::java::Java;
use super::settings::{LOG, LOG_PROPERTIES};

/// What to do about the class-data archive that makes starts fast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Archive {
    None,
    Use(PathBuf),
    /// Write it when the program ends.
    Make(PathBuf),
}

/// A Java runtime with Kafka's classes.
#[derive(Debug, Clone)]
pub(super) struct Jvm {
    pub(super) java: Java,
    pub(super) distribution: Distribution,
    pub(super) heap_mib: u32,
    pub(super) archive: Archive,
}

impl Jvm {
    /// `java … main`, to be run in `dir`, which holds the settings files. Standard streams are left to the
    /// caller, but for the input.
    pub(super) fn command(&self, main: &str, dir: &Path) -> Command {
        let mut command = Command::new(&self.java.path);
        command
            .current_dir(dir)
            .stdin(Stdio::null())
            .arg(format!("-Xms{0}m", self.heap_mib))
            .arg(format!("-Xmx{0}m", self.heap_mib))
            // Only the quick compiler. The full one costs a second of CPU at each start and gave no more
            // throughput in a run of 900,000 records: it took 1.9 µs of CPU for a record where the quick one
            // took 1.1.
            .arg("-XX:TieredStopAtLevel=1")
            // A stale or unfit archive is passed over in silence instead of with a warning on the console.
            .args(["-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"])
            .args(["-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"])
            .arg(format!("-Dsluice.log={LOG}"))
            .arg(format!("-Dlog4j2.configurationFile={LOG_PROPERTIES}"));
        match &self.archive {
            Archive::None => {}
            Archive::Use(path) => drop(command.arg(flag("-XX:SharedArchiveFile=", path))),
            Archive::Make(path) => drop(command.arg(flag("-XX:ArchiveClassesAtExit=", path))),
        }
        // Last, so that a process list shows which data directory a stray java belongs to without the class
        // path before it.
        command
            .arg(flag("-Dsluice.dir=", dir))
            .arg("-cp")
            .arg(self.class_path())
            .arg(main);
        command
    }

    fn class_path(&self) -> OsString {
        let mut path = OsString::new();
        for jar in &self.distribution.jars {
            if !path.is_empty() {
                path.push(":");
            }
            path.push(jar);
        }
        path
    }
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(path);
    flag
}
