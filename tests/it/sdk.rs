//! Published clients, unmodified, against the real gateway, through a network that fails them: every event they were given
//! comes out of the processor exactly once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sluice::dev::kafka::LocalKafka;
use sluice::event::AddressedKind;
use sluice::event::codec::decode_addressed;

use crate::support::fault_proxy::{Fate, FaultProxy, Faults};
use crate::support::process::{Bed, Process, free_address, wait_for};
use crate::support::records::{Record, Tail, read_all};

const EVENTS: usize = 40;
const WITHIN: Duration = Duration::from_secs(120);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk")
}

/// Gateway and processor, with a source whose events go to one destination.
struct Sluice {
    bed: Bed,
    address: SocketAddr,
    _processes: [Process; 2],
}

impl Sluice {
    fn start(name: &str) -> Self {
        let kafka = LocalKafka::shared().unwrap();
        let bed = Bed::new(kafka.bootstrap(), name);
        bed.workspace(&json!({
            "sources": [{"id": "s", "write_key": "sdk-key"}],
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

    /// The events' own numbers, and how often each was delivered.
    fn delivered(records: &[Record]) -> BTreeMap<i64, usize> {
        let mut numbers = BTreeMap::new();
        for record in records {
            let addressed = decode_addressed(AddressedKind::Delivery, &record.payload).unwrap();
            let event: Value = serde_json::from_slice(&addressed.envelope.event).unwrap();
            *numbers
                .entry(event["properties"]["n"].as_i64().unwrap())
                .or_default() += 1;
        }
        numbers
    }

    /// Runs `client` through the faults; each of its events must be delivered once.
    fn check(&self, then: Vec<Fate>, client: impl FnOnce(&str) -> Command) {
        let faults = Faults {
            unavailable: Duration::from_secs(5),
            then: then.clone(),
        };
        let proxy = FaultProxy::start(self.address, faults);
        let mut client = client(&format!("http://{}", proxy.address));
        let mut process = Process::spawn(
            "client",
            {
                client.env("NO_PROXY", "*");
                client
            },
            self.bed.path("client.log"),
        );
        let status = wait_for("the client to end", WITHIN, || process.ended());
        assert!(
            status.success(),
            "the client ended with {status}\n{}",
            process.log()
        );

        let topic = self.bed.topic("deliver.hook");
        Tail::open(&self.bed.bootstrap, &topic).read_until("every event", WITHIN, |records| {
            Self::delivered(records).len() >= EVENTS
        });
        // A request that was cut off behind the gateway lies twice in `events`, with one message id.
        let accepted = read_all(&self.bed.bootstrap, &self.bed.topic("events")).len();
        let fates = proxy.fates();
        println!("{accepted} accepted; POSTs: {fates:?}");
        for fate in then {
            assert!(
                fates.contains(&fate),
                "the client never met {fate:?}: {fates:?}"
            );
        }
        assert!(fates.contains(&Fate::Unavailable));
        if fates.contains(&Fate::CutAfter) {
            assert!(
                accepted > EVENTS,
                "nothing was sent twice, so nothing was proved"
            );
        }
        let delivered = Self::delivered(&read_all(&self.bed.bootstrap, &topic));
        let once: BTreeMap<i64, usize> = (0..).map(|n| (n, 1)).take(EVENTS).collect();
        assert_eq!(delivered, once);
    }
}

const EVERY_FATE: [Fate; 7] = [
    Fate::TooMany,
    Fate::CutAfter,
    Fate::Pass,
    Fate::CutBefore,
    Fate::Pass,
    Fate::CutAfter,
    Fate::TooMany,
];

/// Node with the packages of `tests/sdk`, installed on first use; `None`, said aloud, where that cannot be.
fn node() -> Option<Command> {
    static INSTALLED: std::sync::OnceLock<Result<(), String>> = std::sync::OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        let run = |program: &str, args: &[&str]| {
            let output = Command::new(program)
                .args(args)
                .current_dir(folder())
                .output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(format!(
                    "{program}: {}",
                    String::from_utf8_lossy(&output.stderr)
                )),
                Err(error) => Err(format!("{program}: {error}")),
            }
        };
        run("node", &["--version"])?;
        if folder().join("node_modules/.package-lock.json").exists() {
            return Ok(());
        }
        run(
            "npm",
            &["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        )
    });
    if let Err(error) = installed {
        println!("SKIPPED: no node clients: {error}");
        return None;
    }
    let mut command = Command::new("node");
    command.current_dir(folder()).arg("node.mjs");
    Some(command)
}

fn node_client(name: &str, package: &str) {
    let Some(mut command) = node() else { return };
    Sluice::start(name).check(EVERY_FATE.to_vec(), |url| {
        command.args([package, url, "sdk-key", &EVENTS.to_string()]);
        command
    });
}

#[test]
fn rudderstacks_node_client_gets_every_event_through_once() {
    node_client("sdk-rudder", "@rudderstack/rudder-sdk-node");
}

#[test]
fn segments_node_client_gets_every_event_through_once() {
    node_client("sdk-segment", "@segment/analytics-node");
}

/// This client sends no message ids and does not try again when a connection breaks in the middle of a request. So its requests
/// are only cut before the gateway has them: behind it, two sendings of one event would be two events, as with RudderStack.
#[test]
fn rudderstacks_rust_client_gets_every_event_through_once() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-rust");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--quiet", "--manifest-path"])
        .arg(folder().join("rust/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    if !built.status.success() {
        // Without the registry there is nothing to build from.
        println!(
            "SKIPPED: no Rust client: {}",
            String::from_utf8_lossy(&built.stderr)
        );
        return;
    }
    let fates = vec![
        Fate::TooMany,
        Fate::CutBefore,
        Fate::Pass,
        Fate::CutBefore,
        Fate::TooMany,
    ];
    Sluice::start("sdk-rust").check(fates, |url| {
        let mut command = Command::new(target.join("debug/sluice-sdk-rust"));
        command.args([url, "sdk-key", &EVENTS.to_string()]);
        command
    });
}
