//! The real binary as child processes: started, waited for, killed, started again. None outlives the test process.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of a process's log that a failing test prints.
const LOG_LINES_SHOWN: usize = 60;

/// A folder with one configuration, under its own topic prefix, from which processes are started.
pub struct Bed {
    dir: tempfile::TempDir,
    /// The cluster.
    pub bootstrap: String,
    /// Topic prefix, with its dot.
    pub prefix: String,
    config: Value,
}

impl Bed {
    /// A configuration for `bootstrap`; `name` begins the topic prefix.
    pub fn new(bootstrap: &str, name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!(
            "{name}-{}-{}-{:06x}.",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed),
            fastrand::u32(..0x0100_0000)
        );
        let dir = tempfile::Builder::new()
            .prefix(&format!("sluice-{name}-"))
            .tempdir()
            .unwrap();
        let mut bed = Self {
            config: json!({}),
            dir,
            bootstrap: bootstrap.to_owned(),
            prefix: prefix.clone(),
        };
        bed.set("mode", "dev");
        bed.set("kafka.bootstrap", bootstrap);
        bed.set("topics.prefix", prefix);
        bed.set(
            "workspace.file",
            bed.path("workspace.json").to_str().unwrap(),
        );
        bed
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sets a dotted key of the configuration.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let mut at = &mut self.config;
        for part in key.split('.') {
            at = &mut at[part];
        }
        *at = value.into();
    }

    /// Writes the customer's configuration (either shape).
    pub fn workspace(&self, workspace: &Value) {
        fs::write(self.path("workspace.json"), workspace.to_string()).unwrap();
    }

    /// Full name of a topic.
    pub fn topic(&self, family: &str) -> String {
        format!("{}{family}", self.prefix)
    }

    /// Runs a command of the binary to its end, e.g. `topics apply`.
    ///
    /// # Panics
    /// With its output, unless it succeeds.
    pub fn run(&self, args: &[&str]) -> String {
        let config = self.write_config("command", &[]);
        let output = binary()
            .args(args)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "sluice {args:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// A role as a process of its own, not started yet. `instance` is its stable name among its peers.
    pub fn role(&self, role: &str, instance: &str) -> Role<'_> {
        Role {
            bed: self,
            role: role.to_owned(),
            instance: instance.to_owned(),
            admin: free_address(),
            settings: Vec::new(),
        }
    }

    fn write_config(&self, name: &str, settings: &[(String, Value)]) -> PathBuf {
        let path = self.path(&format!("{name}.yaml"));
        let mut config = self.config.clone();
        for (key, value) in settings {
            let mut at = &mut config;
            for part in key.split('.') {
                at = &mut at[part];
            }
            *at = value.clone();
        }
        // JSON is YAML.
        fs::write(&path, config.to_string()).unwrap();
        path
    }
}

/// A role with its own settings; every start is one life of it, at the same addresses.
pub struct Role<'a> {
    bed: &'a Bed,
    role: String,
    instance: String,
    admin: SocketAddr,
    settings: Vec<(String, Value)>,
}

impl Role<'_> {
    /// Sets a dotted key for this role only.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.push((key.to_owned(), value.into()));
        self
    }

    /// Starts a life with `failpoints` armed (empty for none); does not wait.
    pub fn start(&self, failpoints: &str) -> Process {
        let mut settings = self.settings.clone();
        settings.push(("instance".into(), self.instance.clone().into()));
        settings.push(("admin.listen".into(), self.admin.to_string().into()));
        let config = self.bed.write_config(&self.instance, &settings);
        let mut command = binary();
        command
            .arg(&self.role)
            .arg("--config")
            .arg(config)
            .env("SLUICE_FAILPOINTS", failpoints)
            .env("RUST_BACKTRACE", "1")
            .env("NO_COLOR", "1");
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info,rdkafka=warn,librdkafka=warn");
        }
        let log = self.bed.path(&format!("{}.log", self.instance));
        let mut process = Process::spawn(&self.instance, command, log);
        process.admin = Some(self.admin);
        process
    }

    /// [`Role::start`] without failpoints, and waits until it is ready.
    pub fn start_ready(&self, within: Duration) -> Process {
        let mut process = self.start("");
        process.wait_ready(within);
        process
    }
}

/// One life of a program. Dropping it kills it.
pub struct Process {
    /// For messages.
    pub name: String,
    child: Child,
    log: PathBuf,
    /// Where this life's lines begin in the log, which all lives share.
    log_from: u64,
    admin: Option<SocketAddr>,
}

impl Process {
    /// Starts `command` with standard error (and output) appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: PathBuf) -> Self {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        writeln!(file, "---- start of {name}").unwrap();
        let log_from = file.metadata().unwrap().len();
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let child = spawn_bound(command).unwrap();
        Self {
            name: name.to_owned(),
            child,
            log,
            log_from,
            admin: None,
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What this life has logged so far.
    pub fn log(&self) -> String {
        tail(&self.log, self.log_from)
    }

    /// Waits until `/health/ready` answers 200.
    ///
    /// # Panics
    /// With the log, when it ends or does not get ready.
    #[track_caller]
    pub fn wait_ready(&mut self, within: Duration) {
        let admin = self.admin.unwrap();
        let until = Instant::now() + within;
        let mut last = String::from("no answer");
        while Instant::now() < until {
            if let Some(status) = self.ended() {
                panic!(
                    "{} ended with {status} before it was ready\n{}",
                    self.name,
                    self.log()
                );
            }
            match get(admin, "/health/ready") {
                Ok((200, _)) => return,
                Ok((_, body)) => last = body,
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!(
            "{} is not ready after {within:?}: {last}\n{}",
            self.name,
            self.log()
        );
    }

    /// Whether `/health/ready` answers 200 now.
    pub fn is_ready(&self) -> bool {
        self.admin
            .is_some_and(|admin| matches!(get(admin, "/health/ready"), Ok((200, _))))
    }

    /// What a page of health says now.
    pub fn health(&self, page: &str) -> (u16, String) {
        get(self.admin.unwrap(), &format!("/health/{page}")).unwrap()
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        get(self.admin.unwrap(), "/metrics").unwrap().1
    }

    /// The metrics page, if it is served.
    pub fn try_metrics(&self) -> Option<String> {
        get(self.admin?, "/metrics").ok().map(|(_, page)| page)
    }

    /// The file that all lives log to.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Whether it has ended by SIGKILL; panics when it ended in any other way.
    #[track_caller]
    pub fn was_killed(&mut self) -> bool {
        let Some(status) = self.ended() else {
            return false;
        };
        assert_eq!(
            status.signal(),
            Some(Signal::SIGKILL as i32),
            "{} ended by itself with {status}\n{}",
            self.name,
            self.log()
        );
        true
    }

    /// `kill -9`, and waits for the end.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
    }

    /// Whether it was stopped and waits for SIGCONT.
    pub fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// With the log, when it does not drain in time.
    #[track_caller]
    pub fn stop(mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let until = Instant::now() + within;
        while Instant::now() < until {
            if let Some(status) = self.ended() {
                return status;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!(
            "{} has not drained within {within:?}\n{}",
            self.name,
            self.log()
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.child.kill().and_then(|()| self.child.wait());
        if std::thread::panicking() {
            let text = self.log();
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!(
                "---- last lines of {}\n{}",
                self.name,
                lines[from..].join("\n")
            );
        }
    }
}

/// The binary under test.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
}

/// A loopback address that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Waits until `condition` gives a value.
///
/// # Panics
/// With `what`, when it does not in time.
#[track_caller]
pub fn wait_for<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "{what}: not within {within:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A plain GET, for health and metrics.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

fn tail(path: &Path, from: u64) -> String {
    use std::io::Seek;
    let Ok(mut file) = File::open(path) else {
        return String::new();
    };
    let mut bytes = Vec::new();
    file.seek(std::io::SeekFrom::Start(from)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Starts `command` so that the kernel kills it when this process ends in whatever way. The signal comes when the *thread*
/// that forked ends, so one thread that never ends starts them all.
pub fn spawn_bound(mut command: Command) -> std::io::Result<Child> {
    type Job = Box<dyn FnOnce() + Send>;
    static JOBS: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Job>();
        std::thread::spawn(move || receiver.into_iter().for_each(|job| job()));
        sender
    });
    let parent = nix::unistd::getpid();
    // SAFETY: runs between fork and exec; both calls are async-signal-safe and the closure neither allocates nor locks.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() == parent {
                Ok(())
            } else {
                Err(std::io::ErrorKind::NotFound.into())
            }
        });
    }
    let (result, answer) = mpsc::channel();
    jobs.send(Box::new(move || result.send(command.spawn()).unwrap()))
        .unwrap();
    answer.recv().unwrap()
}
