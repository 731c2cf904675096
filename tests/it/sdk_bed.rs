//! Where published clients are run: gateway and processor, a network that fails, and what must come out at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sluice::dev::kafka::LocalKafka;
use sluice::event::AddressedKind;
use sluice::event::codec::decode_addressed;

use crate::support::fault_proxy::{Fate, FaultProxy, Faults};
use crate::support::process::{Bed, Process, free_address, wait_for};
use crate::support::records::{Record, Tail, read_all};

/// Events that a client is given.
pub const EVENTS: usize = 40;
/// The source's write key.
pub const KEY: &str = "sdk-key";
/// 503 for five seconds, then one of everything.
pub const EVERY_FATE: [Fate; 7] = [
    Fate::TooMany,
    Fate::CutAfter,
    Fate::Pass,
    Fate::CutBefore,
    Fate::Pass,
    Fate::CutAfter,
    Fate::TooMany,
];

const WITHIN: Duration = Duration::from_secs(120);

/// When a client is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// When it was told that every event was accepted.
    ByItself,
    /// When it is told to: it cannot know what became of its events.
    OnSignal,
}

/// Gateway and processor, with a source whose events go to one destination.
pub struct Sluice {
    bed: Bed,
    address: SocketAddr,
    _processes: [Process; 2],
}

impl Sluice {
    /// Starts both; `name` begins the topic prefix.
    pub fn start(name: &str) -> Self {
        let kafka = LocalKafka::shared().unwrap();
        let bed = Bed::new(kafka.bootstrap(), name);
        bed.workspace(&json!({
            "sources": [{"id": "s", "write_key": KEY}],
            "destinations": [{"id": "hook", "type": "WEBHOOK", "config": {"webhookUrl": "http://127.0.0.1:9/"}}],
            "connections": [{"source": "s", "destination": "hook"}],
        }));
        bed.run(&["topics", "apply", "--yes"]);
        let address = free_address();
        let processor = bed.role("processor", "processor").start_ready(WITHIN);
        let gateway = bed
            .role("gateway", "gateway")
            .with("gateway.listen", address.to_string())
            .start_ready(WITHIN);
        Self {
            bed,
            address,
            _processes: [processor, gateway],
        }
    }

    /// Runs the command that `client` makes of the gateway's URL through 503 for five seconds and `then` one fate after
    /// the other (empty: through nothing at all). Each of its events must be delivered once. Returns the types that they had.
    #[track_caller]
    pub fn check(
        &self,
        then: &[Fate],
        ends: Ends,
        client: impl FnOnce(&str) -> Command,
    ) -> BTreeSet<String> {
        let unavailable = Duration::from_secs(if then.is_empty() { 0 } else { 5 });
        let proxy = FaultProxy::start(
            self.address,
            Faults {
                unavailable,
                then: then.to_vec(),
            },
        );
        let mut command = client(&format!("http://{}", proxy.address));
        command
            .env("NO_PROXY", "*")
            // Whatever it leaves goes with the bed.
            .env("TMPDIR", self.bed.path(""));
        let mut process = Process::spawn("client", command, self.bed.path("client.log"));
        let end = |process: &mut Process| {
            let status = wait_for("the client to end", WITHIN, || process.ended());
            assert!(
                status.success(),
                "the client ended with {status}\n{}",
                process.log()
            );
        };
        if ends == Ends::ByItself {
            end(&mut process);
        }
        let topic = self.bed.topic("deliver.hook");
        Tail::open(&self.bed.bootstrap, &topic).read_until("every event", WITHIN, |records| {
            numbers(records).len() >= EVENTS
        });
        if ends == Ends::OnSignal {
            process.signal(Signal::SIGTERM);
            end(&mut process);
        }
        // A request that was cut off behind the gateway lies twice in `events`, with one message id.
        let accepted = read_all(&self.bed.bootstrap, &self.bed.topic("events")).len();
        let fates = proxy.fates();
        println!("{accepted} accepted; POSTs: {fates:?}");
        for fate in then {
            assert!(
                fates.contains(fate),
                "the client never met {fate:?}: {fates:?}"
            );
        }
        assert_eq!(fates.contains(&Fate::Unavailable), !then.is_empty());
        if then.contains(&Fate::CutAfter) {
            assert!(
                accepted > EVENTS,
                "nothing was sent twice, so nothing was proved"
            );
        }
        let records = read_all(&self.bed.bootstrap, &topic);
        let once: BTreeMap<i64, usize> = (0..).map(|n| (n, 1)).take(EVENTS).collect();
        assert_eq!(numbers(&records), once);
        let types = records.iter().map(event);
        types
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn event(record: &Record) -> Value {
    let addressed = decode_addressed(AddressedKind::Delivery, &record.payload).unwrap();
    serde_json::from_slice(&addressed.envelope.event).unwrap()
}

/// The events' own numbers, and how often each was delivered.
fn numbers(records: &[Record]) -> BTreeMap<i64, usize> {
    let mut numbers = BTreeMap::new();
    for event in records.iter().map(event) {
        // Not every type of event has properties, but all have a context.
        let number = [&event["properties"], &event["context"]]
            .into_iter()
            .find_map(|place| place["n"].as_i64());
        *numbers
            .entry(number.unwrap_or_else(|| panic!("no number in {event}")))
            .or_default() += 1;
    }
    numbers
}

/// `tests/sdk`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// Node on a script of `tests/sdk`, with its packages, which are installed on first use.
///
/// # Panics
/// Where that cannot be: a proof that is skipped proves nothing.
#[track_caller]
pub fn node(script: &str) -> Command {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    if let Err(problem) = INSTALLED.get_or_init(install) {
        panic!(
            "these tests need node and npm (./dev/test --packages-only installs both) and the npm registry: {problem}"
        );
    }
    let mut command = Command::new("node");
    command.current_dir(folder()).arg(script);
    command
}

fn install() -> Result<(), String> {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program)
            .args(args)
            .current_dir(folder())
            .output()
            .map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{program}: {said}"))
    };
    run("node", &["--version"])?;
    let changed = |path: &str| -> Option<SystemTime> {
        std::fs::metadata(folder().join(path)).ok()?.modified().ok()
    };
    // Written by npm at the end of an installation.
    if changed("node_modules/.package-lock.json") > changed("package-lock.json") {
        return Ok(());
    }
    run(
        "npm",
        &["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
    )
}
