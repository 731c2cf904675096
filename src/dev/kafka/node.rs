//! One broker: its folder, its process, its life.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::LocalKafkaError;
use super::failure;
use super::jvm::Jvm;
use super::probe;
use super::process::{ProcessMark, spawn_bound};
use super::settings::{DATA, LOG, LOG_PROPERTIES, LOG4J, PROPERTIES, Peer};

/// How often to ask a starting broker, or look at a stopping one.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The storage tool needs about a second.
const FORMAT_WITHIN: Duration = Duration::from_secs(60);

const CONSOLE: &str = "console.log";
const PID: &str = "broker.pid";
const PORTS: &str = "ports";
/// Written when formatting is complete: a run that was killed half way leaves data that no broker has ever
/// used.
const FORMATTED: &str = "formatted";

/// A broker of ours. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) peer: Peer,
    dir: PathBuf,
    child: Option<Child>,
    /// Length of the log when the process was started; what follows is this start's.
    log_offset: u64,
}

impl Node {
    pub(super) fn new(peer: Peer, dir: PathBuf) -> Self {
        Self {
            peer,
            dir,
            child: None,
            log_offset: 0,
        }
    }

    /// Ends the broker that an earlier run left on `dir`, if there is one.
    pub(super) fn end_stale(dir: &Path, grace: Duration) -> Result<Option<i32>, LocalKafkaError> {
        let path = dir.join(PID);
        let Some(mark) = ProcessMark::read(&path) else {
            return Ok(None);
        };
        let was_alive = mark.is_alive();
        if !mark.end(grace) {
            return Err(LocalKafkaError::Stale {
                pid: mark.pid,
                data_dir: dir.to_owned(),
            });
        }
        fs::remove_file(&path).map_err(LocalKafkaError::io("remove", &path))?;
        Ok(was_alive.then_some(mark.pid))
    }

    /// The ports that the broker in `dir` had at its last start.
    pub(super) fn last_ports(dir: &Path) -> (Option<u16>, Option<u16>) {
        super::ports::recall(&dir.join(PORTS))
    }

    /// Writes the settings, and formats the storage the first time.
    pub(super) fn prepare(
        &self,
        properties: &str,
        jvm: &Jvm,
        cluster_id: &str,
    ) -> Result<(), LocalKafkaError> {
        let write = |name: &str, text: &str| {
            let path = self.dir.join(name);
            fs::write(&path, text).map_err(LocalKafkaError::io("write", &path))
        };
        fs::create_dir_all(&self.dir).map_err(LocalKafkaError::io("create", &self.dir))?;
        write(PROPERTIES, properties)?;
        write(LOG_PROPERTIES, LOG4J)?;
        write(
            PORTS,
            &format!("{} {}\n", self.peer.client_port, self.peer.controller_port),
        )?;
        if self.dir.join(FORMATTED).exists() {
            return Ok(());
        }
        let data = self.dir.join(DATA);
        if data.exists() {
            fs::remove_dir_all(&data).map_err(LocalKafkaError::io("remove", &data))?;
        }
        self.format(jvm, cluster_id)?;
        write(FORMATTED, cluster_id)
    }

    fn format(&self, jvm: &Jvm, cluster_id: &str) -> Result<(), LocalKafkaError> {
        let mut command = jvm.command("kafka.tools.StorageTool", &self.dir);
        command.args(["format", "--cluster-id", cluster_id, "--config", PROPERTIES]);
        let mut child = self.spawn(command)?;
        let status = wait_until(&mut child, Instant::now() + FORMAT_WITHIN)?;
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        end(&mut child)?;
        Err(LocalKafkaError::Format {
            data_dir: self.dir.clone(),
            tail: failure::excerpt(&failure::since(&self.dir.join(CONSOLE), 0)),
        })
    }

    /// Starts the process. It does not answer yet; see [`Node::is_ready`].
    pub(super) fn start(&mut self, jvm: &Jvm) -> Result<(), LocalKafkaError> {
        self.log_offset = fs::metadata(self.log()).map_or(0, |log| log.len());
        let mut command = jvm.command("kafka.Kafka", &self.dir);
        command.arg(PROPERTIES);
        let child = self.spawn(command)?;
        // A process that has already ended has no mark; waiting for it to be ready will tell why.
        if let Some(mark) = ProcessMark::of(child.id()) {
            let path = self.dir.join(PID);
            mark.write(&path)
                .map_err(LocalKafkaError::io("write", &path))?;
        }
        self.child = Some(child);
        Ok(())
    }

    fn spawn(&self, mut command: std::process::Command) -> Result<Child, LocalKafkaError> {
        let path = self.dir.join(CONSOLE);
        let console = File::create(&path).map_err(LocalKafkaError::io("create", &path))?;
        let errors = console
            .try_clone()
            .map_err(LocalKafkaError::io("open", &path))?;
        command.stdout(console).stderr(errors);
        spawn_bound(command).map_err(LocalKafkaError::io("run", &self.dir.join("java")))
    }

    /// Waits until the broker answers and sees all of `expected` with their present ports.
    ///
    /// # Errors
    /// [`LocalKafkaError::Ended`] when the process ends, [`LocalKafkaError::NotReady`] at `until`.
    pub(super) fn wait_ready(
        &mut self,
        expected: &[Peer],
        cluster_id: &str,
        until: Instant,
    ) -> Result<(), LocalKafkaError> {
        let began = Instant::now();
        loop {
            self.check()?;
            let reason = match probe::metadata(&self.address()) {
                Ok(view)
                    if view
                        .cluster_id
                        .as_deref()
                        .is_some_and(|id| id != cluster_id) =>
                {
                    "another cluster answers at its address".to_owned()
                }
                Ok(view)
                    if expected
                        .iter()
                        .all(|peer| view.brokers.contains(&(peer.id, peer.client_port.into()))) =>
                {
                    return Ok(());
                }
                Ok(view) => format!(
                    "it sees {} of {} brokers",
                    view.brokers.len(),
                    expected.len()
                ),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                let log = self.log();
                let tail = failure::excerpt(&failure::since(&log, self.log_offset));
                return Err(LocalKafkaError::NotReady {
                    node: self.peer.id,
                    waited: began.elapsed(),
                    reason,
                    log,
                    tail,
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// An error with the broker's last words if the process has ended without being asked to.
    pub(super) fn check(&mut self) -> Result<(), LocalKafkaError> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let ended = child.try_wait().map_err(|source| LocalKafkaError::Io {
            what: "look at a broker".into(),
            source,
        })?;
        let Some(status) = ended else { return Ok(()) };
        let log = self.log();
        let words =
            failure::since(&self.dir.join(CONSOLE), 0) + &failure::since(&log, self.log_offset);
        Err(LocalKafkaError::Ended {
            node: self.peer.id,
            status: status.to_string(),
            hint: failure::hint(&words),
            log,
            tail: failure::excerpt(&words),
        })
    }

    /// Whether a broker failed to start because somebody else got its port first.
    pub(super) fn lost_its_port(&self) -> bool {
        failure::since(&self.log(), self.log_offset).contains(failure::PORT_IN_USE)
    }

    /// Asks the broker to stop; [`Node::finish`] waits for it.
    pub(super) fn ask_to_stop(&mut self) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by itself; waiting for it tells.
            let _sent = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// Waits for the broker to end, and kills it at `until`. Gives back whether it ended by itself.
    pub(super) fn finish(&mut self, until: Instant) -> Result<bool, LocalKafkaError> {
        let Some(mut child) = self.child.take() else {
            return Ok(true);
        };
        let by_itself = wait_until(&mut child, until)?.is_some();
        end(&mut child)?;
        let path = self.dir.join(PID);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LocalKafkaError::io("remove", &path)(error))
            }
            Ok(()) | Err(_) => Ok(by_itself),
        }
    }

    /// The process id while a process was started and not yet stopped.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.peer.client_port)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nothing is lost by a kill: what Kafka acknowledged is in the page cache, and the next start
        // recovers the open segments.
        if let Err(error) = self.finish(Instant::now()) {
            tracing::warn!(%error, node = self.peer.id, "could not clean up after a broker");
        }
    }
}

/// Waits for a child at most until `until`; `None` if it still runs then.
fn wait_until(child: &mut Child, until: Instant) -> Result<Option<ExitStatus>, LocalKafkaError> {
    loop {
        let status = child.try_wait().map_err(|source| LocalKafkaError::Io {
            what: "wait for a broker".into(),
            source,
        })?;
        if status.is_some() || Instant::now() >= until {
            return Ok(status);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Kills a child (harmless if it has ended) and takes its status, so that no zombie stays.
fn end(child: &mut Child) -> Result<(), LocalKafkaError> {
    let killed = child.kill().and_then(|()| child.wait());
    killed.map(drop).map_err(|source| LocalKafkaError::Io {
        what: "kill a broker".into(),
        source,
    })
}
