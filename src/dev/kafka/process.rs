//! Child processes that cannot outlive us, and finding those of an earlier run.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often to look whether a process that is not our child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

type Job = Box<dyn FnOnce() + Send>;

/// Starts `command` so that the kernel kills it when this process ends in whatever way (on Linux; elsewhere
/// the pid file must do).
///
/// Two traps. `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, and tokio ends idle blocking
/// threads after ten seconds; so all children are started by one thread that never ends. And the child gets
/// its own process group: Ctrl-C at the terminal goes to the whole foreground group, and would take the
/// broker away while we still drain into it.
pub(super) fn spawn_bound(mut command: Command) -> io::Result<Child> {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    die_with_parent(&mut command);
    on_lasting_thread(move || command.spawn())
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    // SAFETY: runs between fork and exec; prctl and getppid are async-signal-safe and the closure neither
    // allocates nor locks.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above, and then nobody would signal us.
            if nix::unistd::getppid() == parent {
                Ok(())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        });
    }
}

/// Runs `job` on a thread that lives as long as the process.
fn on_lasting_thread<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    static JOBS: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Job>();
        // If the thread cannot be made, its receiver is gone and the send below fails.
        let _started = std::thread::Builder::new()
            .name("kafka-parent".into())
            .spawn(move || receiver.into_iter().for_each(|job| job()));
        sender
    });
    let gone = || io::Error::other("the thread that starts processes is gone");
    let (result, answer) = mpsc::channel();
    // Nobody to answer to means that the caller's thread is being torn down.
    jobs.send(Box::new(move || drop(result.send(job()))))
        .map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// A process that can be recognised again later: the number alone may by then belong to somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProcessMark {
    pub(super) pid: i32,
    /// When it was started, in the system's own terms; only ever compared.
    born: String,
}

impl ProcessMark {
    /// The mark of a live process.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self {
            pid,
            born: born(pid)?,
        })
    }

    /// Reads a mark; a missing or broken file means that there is none.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, born) = text.trim_end().split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            born: born.to_owned(),
        })
    }

    /// Writes the mark in one step, so that a reader never sees half of it.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let staged = path.with_extension("new");
        fs::write(&staged, format!("{} {}\n", self.pid, self.born))?;
        fs::rename(staged, path)
    }

    pub(super) fn is_alive(&self) -> bool {
        born(self.pid).as_ref() == Some(&self.born)
    }

    /// Asks the process to end, and kills it if it has not after `grace`. Gives back whether it is gone.
    pub(super) fn end(&self, grace: Duration) -> bool {
        for (signal, patience) in [
            (Signal::SIGTERM, grace),
            (Signal::SIGKILL, Duration::from_secs(10)),
        ] {
            if !self.is_alive() {
                return true;
            }
            // Not ours or already gone: the wait below tells.
            let _sent = kill(Pid::from_raw(self.pid), signal);
            let until = Instant::now() + patience;
            while self.is_alive() && Instant::now() < until {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        !self.is_alive()
    }
}

/// When a live process was started: boot and clock ticks since it on Linux, the wall clock as `ps` prints it
/// elsewhere.
fn born(pid: i32) -> Option<String> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            Some(format!("{}/{}", boot.trim(), started_at(&stat)?))
        }
        Err(_) if Path::new("/proc/self/stat").exists() => None,
        Err(_) => {
            let output = Command::new("ps")
                .args(["-o", "lstart=", "-p", &pid.to_string()])
                .output()
                .ok()?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            (!text.is_empty()).then_some(text)
        }
    }
}

/// Field 22 of `/proc/<pid>/stat`, unless the process is a zombie: dead, and only waiting for a parent that
/// may never ask.
fn started_at(stat: &str) -> Option<&str> {
    // The command name stands in parentheses and may contain anything, parentheses and spaces included.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X"))
        .then(|| fields.nth(18))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    fn sleeper() -> Child {
        Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    #[test]
    fn the_start_time_is_found_behind_a_hostile_command_name() {
        let tail = (4..=52)
            .map(|field| field.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(started_at(&format!("7 (a) b) S {tail}")), Some("22"));
        assert_eq!(started_at(&format!("7 (java) Z {tail}")), None);
        assert_eq!(started_at("7 (java"), None);
    }

    #[test]
    fn a_process_of_an_earlier_run_is_recognised_from_its_file_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.pid");
        let mut child = sleeper();
        ProcessMark::of(child.id()).unwrap().write(&path).unwrap();
        let found = ProcessMark::read(&path).unwrap();
        assert!(found.is_alive());
        assert!(found.end(Duration::from_secs(5)));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_stranger_with_the_same_number_is_left_alone() {
        let mut child = sleeper();
        let mark = ProcessMark {
            pid: i32::try_from(child.id()).unwrap(),
            born: "another boot/1".into(),
        };
        assert!(!mark.is_alive());
        assert!(mark.end(Duration::ZERO));
        assert!(
            child.try_wait().unwrap().is_none(),
            "the stranger was killed"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_child_lives_on_when_the_thread_that_asked_for_it_ends() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("600").stdin(Stdio::null());
            spawn_bound(command).unwrap()
        })
        .join()
        .unwrap();
        // A signal at the thread's end would be pending by the time that a second round trip through the
        // kernel is done.
        let mut second = Command::new("true").spawn().unwrap();
        second.wait().unwrap();
        assert!(
            child.try_wait().unwrap().is_none(),
            "the child died with its thread"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error_and_not_a_hang() {
        assert_eq!(
            spawn_bound(Command::new("/nonexistent/java"))
                .unwrap_err()
                .kind(),
            io::ErrorKind::NotFound
        );
    }
}
