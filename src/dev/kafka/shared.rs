//! One broker for a whole test process.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::LocalKafka;
use super::error::LocalKafkaError;
use super::options::LocalKafkaOptions;

/// See [`LocalKafka::shared`].
pub(super) fn shared() -> Result<&'static LocalKafka, &'static LocalKafkaError> {
    static SHARED: OnceLock<Result<(LocalKafka, Option<Child>), LocalKafkaError>> = OnceLock::new();
    let started = SHARED.get_or_init(|| {
        let data_dir = std::env::temp_dir().join(format!(
            "sluice-kafka-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        ));
        let progress = std::sync::Arc::new(|line: &str| tracing::info!("{line}"));
        // The value lives in a static and is never dropped; the kernel ends the broker with us, and the
        // sweeper removes its folder.
        let kafka = LocalKafka::find_or_start(LocalKafkaOptions {
            progress,
            ..LocalKafkaOptions::new(&data_dir)
        })?;
        let sweeper = kafka
            .is_ours()
            .then(|| sweep_after_us(&data_dir))
            .transpose();
        Ok((
            kafka,
            sweeper.map_err(LocalKafkaError::io(
                "start a process that removes",
                &data_dir,
            ))?,
        ))
    });
    started.as_ref().map(|(kafka, _)| kafka)
}

/// Starts a shell that removes `dir` when this process has ended, in whatever way: it waits for the end of a
/// pipe whose other end only we hold. A destructor would miss a killed test run, and statics have none.
fn sweep_after_us(dir: &Path) -> io::Result<Child> {
    // The broker is being killed at the same moment and may still create a file; hence a few attempts.
    const SCRIPT: &str =
        r#"cat >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do rm -rf "$1" && exit; sleep 0.3; done"#;
    Command::new("sh")
        .args(["-c", SCRIPT, "sluice-sweeper"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}
